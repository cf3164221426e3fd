// Package onefile makes and starts the delivery in one file: a small static launcher with the program, ONNX Runtime
// and every library that these two need behind it, the C library and its dynamic loader included. It runs on any Linux
// of its architecture, whatever C library that has, or none.
//
//	launcher  an ELF executable
//	contents  the files' bytes one after the other, compressed as XZ or Zstd has it
//	manifest  a line a file: SHA-256, size, name
//	trailer   where contents and manifest begin, the manifest's SHA-256, and the magic
//
// The first start unpacks the files into a folder named by the hash of the manifest; every start checks each file's
// hash before it is used. Where no folder can be written, the files go to memory.
package onefile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/mikelolasagasti/xz"
)

// The names of the files that a start needs to know; the others are libraries, which are found by the loader.
const (
	Loader   = "picket" // the dynamic loader, under the name that ps is to show
	Program  = "picket.bin"
	Library  = "libonnxruntime.so"
	Licences = "THIRD-PARTY.gz" // to be read by people
)

const (
	magic      = "PICKET ONE FILE\n"
	trailerLen = 16 + sha256.Size + len(magic)
)

var errDamaged = errors.New("this file is damaged or was stripped: fetch it again")

// A file is one of those that are packed.
type file struct {
	name string
	size int64
	sum  [sha256.Size]byte
}

// A Decompression is one that a launcher knows. Its errors are those of r, or say that the data is none of its own.
type Decompression func(r io.Reader) (io.ReadCloser, error)

// XZ is small and slow to unpack. It knows the filters for branches of x86, arm and armthumb, and no others.
func XZ(r io.Reader) (io.ReadCloser, error) {
	x, err := xz.NewReader(r, window)
	return io.NopCloser(x), err
}

// Zstd is a fifth larger, and unpacks in a fifth of the time.
func Zstd(r io.Reader) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(window), zstd.WithDecoderLowmem(true))
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

const window = 8 << 20 // of a compression, at most: what unpacking keeps in memory

// Write packs the files of a folder behind a launcher; the program command compresses, from standard input to standard
// output.
func Write(w io.Writer, launcher io.Reader, folder string, command ...string) error {
	start, err := io.Copy(w, launcher)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	entries, err := os.ReadDir(folder) // sorted
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	var manifest bytes.Buffer
	var all []io.Reader
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".sha256") { // the manifest has the hashes
			continue
		}
		data, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			return fmt.Errorf("pack: %w", err)
		}
		fmt.Fprintf(&manifest, "%x %d %s\n", sha256.Sum256(data), len(data), e.Name())
		all = append(all, bytes.NewReader(data))
	}
	contents := &counted{w: w}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = io.MultiReader(all...), contents, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("pack: %s: %w", command[0], err)
	}
	sum := sha256.Sum256(manifest.Bytes())
	end := binary.LittleEndian.AppendUint64(manifest.Bytes(), uint64(start))
	end = binary.LittleEndian.AppendUint64(end, uint64(start+contents.n))
	end = append(end, sum[:]...)
	if _, err := w.Write(append(end, magic...)); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// A pack is what stands behind the launcher.
type pack struct {
	id    string // of the manifest: the same files, the same name
	files []file
	data  *io.SectionReader // contents

	decompress Decompression
}

func open(f *os.File, decompress Decompression) (*pack, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var trailer [trailerLen]byte
	end := info.Size() - int64(trailerLen)
	if end < 0 {
		return nil, errDamaged
	}
	if _, err := f.ReadAt(trailer[:], end); err != nil {
		return nil, err
	}
	contents, list := int64(binary.LittleEndian.Uint64(trailer[:])), int64(binary.LittleEndian.Uint64(trailer[8:]))
	if string(trailer[16+sha256.Size:]) != magic || contents < 0 || list < contents || list > end || end-list > 1<<20 {
		return nil, errDamaged
	}
	manifest := make([]byte, end-list)
	if _, err := f.ReadAt(manifest, list); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(manifest)
	if !bytes.Equal(sum[:], trailer[16:16+sha256.Size]) {
		return nil, errDamaged
	}
	p := &pack{id: hex.EncodeToString(sum[:16]), data: io.NewSectionReader(f, contents, list-contents), decompress: decompress}
	for line := range strings.Lines(string(manifest)) {
		var one file
		var sum []byte
		if n, err := fmt.Sscanf(line, "%x %d %s\n", &sum, &one.size, &one.name); n != 3 || err != nil ||
			len(sum) != sha256.Size || one.size < 0 || one.name != filepath.Base(one.name) || strings.HasPrefix(one.name, ".") {
			return nil, errDamaged
		}
		one.sum = [sha256.Size]byte(sum)
		p.files = append(p.files, one)
	}
	return p, nil
}

// unpack hands every file to create and writes it there.
func (p *pack) unpack(create func(name string) (io.WriteCloser, error)) error {
	z, err := p.decompress(io.NewSectionReader(p.data, 0, p.data.Size()))
	if err != nil {
		return errDamaged
	}
	defer z.Close()
	for _, f := range p.files {
		w, err := create(f.name)
		if err != nil {
			return err
		}
		h := sha256.New()
		n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(z, f.size))
		if closed := w.Close(); err == nil {
			err = closed
		}
		var path *os.PathError // of writing; what the decompression says is about the contents
		if errors.As(err, &path) {
			return err
		}
		if err != nil || n != f.size || [sha256.Size]byte(h.Sum(nil)) != f.sum {
			return errDamaged
		}
	}
	return nil
}
