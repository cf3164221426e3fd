// Oci writes an OCI image of several architectures into one tar file, without a container engine:
//
//	oci OUT VERSION TARGET=DIR...
//
// DIR is a target's root file system. The tar holds an OCI layout; skopeo, podman and containerd read it. A
// manifest.json as of docker save lists each architecture by a tag of its own, for docker load. SOURCE_DATE_EPOCH is the
// time of all that is in it, so that the same files give the same image.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"

	// The user picket of cross/oci.sh, whom the state directory belongs to.
	picketID = 10000
	stateDir = "var/lib/picket"
)

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

// Platforms are the targets' names in OCI's words.
var platforms = map[string]platform{
	"amd64":   {"amd64", "linux", ""},
	"arm64":   {"arm64", "linux", "v8"},
	"armv7":   {"arm", "linux", "v7"},
	"riscv64": {"riscv64", "linux", ""},
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	Schema    int          `json:"schemaVersion"`
	MediaType string       `json:"mediaType"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
}

type index struct {
	Schema      int               `json:"schemaVersion"`
	MediaType   string            `json:"mediaType"`
	Manifests   []descriptor      `json:"manifests"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type image struct {
	platform
	Created string  `json:"created"`
	Config  runtime `json:"config"`
	RootFS  rootFS  `json:"rootfs"`
	History []step  `json:"history"`
}

type runtime struct {
	Env        []string            `json:"Env"`
	Entrypoint []string            `json:"Entrypoint"`
	Cmd        []string            `json:"Cmd"`
	Volumes    map[string]struct{} `json:"Volumes"`
	WorkingDir string              `json:"WorkingDir"`
	StopSignal string              `json:"StopSignal"`
	Labels     map[string]string   `json:"Labels"`
}

type rootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type step struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
}

// docker is an entry of docker save's manifest.json.
type docker struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "oci:", err)
		os.Exit(1)
	}
}

func run(args []string) (err error) {
	if len(args) < 3 {
		return errors.New("usage: oci OUT VERSION TARGET=DIR, of each target one")
	}
	epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	out, err := os.Create(args[0] + ".new")
	if err != nil {
		return err
	}
	err = write(out, args[1], time.Unix(epoch, 0).UTC(), args[2:])
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(args[0]+".new", args[0])
}

// layout is a tar file that is being written. A blob that is already in it is not written again.
type layout struct {
	tar     *tar.Writer
	created time.Time
	blobs   []string
}

func (l *layout) file(name string, data []byte) error {
	h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: l.created, Format: tar.FormatUSTAR}
	if err := l.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := l.tar.Write(data)
	return err
}

func (l *layout) blob(mediaType string, data []byte) (descriptor, error) {
	d := descriptor{MediaType: mediaType, Digest: digest(data), Size: int64(len(data))}
	if slices.Contains(l.blobs, d.Digest) {
		return d, nil
	}
	l.blobs = append(l.blobs, d.Digest)
	return d, l.file(blobPath(d), data)
}

func (l *layout) object(mediaType string, v any) (descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return l.blob(mediaType, data)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func blobPath(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }

func write(out io.Writer, version string, created time.Time, targets []string) error {
	l := &layout{tar: tar.NewWriter(out), created: created}
	if err := l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	labels := map[string]string{
		"org.opencontainers.image.title":    "picket",
		"org.opencontainers.image.version":  version,
		"org.opencontainers.image.created":  created.Format(time.RFC3339),
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
	list := index{Schema: 2, MediaType: indexType, Annotations: labels}
	var loads []docker
	for _, target := range targets {
		name, dir, _ := strings.Cut(target, "=")
		p, ok := platforms[name]
		if !ok {
			return fmt.Errorf("target %s has no platform of OCI", name)
		}
		d, load, err := l.platform(p, dir, labels)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		load.RepoTags = []string{"picket:" + tag(version) + "-" + name}
		list.Manifests = append(list.Manifests, d)
		loads = append(loads, load)
	}
	all, err := l.object(indexType, list)
	if err != nil {
		return err
	}
	all.Annotations = map[string]string{
		"org.opencontainers.image.ref.name": tag(version),
		"io.containerd.image.name":          "docker.io/library/picket:" + tag(version),
	}
	top, err := json.Marshal(index{Schema: 2, MediaType: indexType, Manifests: []descriptor{all}})
	if err != nil {
		return err
	}
	load, err := json.Marshal(loads)
	if err != nil {
		return err
	}
	if err := errors.Join(l.file("index.json", top), l.file("manifest.json", load)); err != nil {
		return err
	}
	return l.tar.Close()
}

// tag makes a version a tag, which knows neither + nor ~.
func tag(version string) string { return strings.NewReplacer("+", "-", "~", "-").Replace(version) }

// platform writes the layer, config and manifest of one architecture.
func (l *layout) platform(p platform, dir string, labels map[string]string) (descriptor, docker, error) {
	diff, packed, err := layer(dir, l.created)
	if err != nil {
		return descriptor{}, docker{}, err
	}
	layer, err := l.blob(layerType, packed)
	if err != nil {
		return descriptor{}, docker{}, err
	}
	at := l.created.Format(time.RFC3339)
	config, err := l.object(configType, image{
		platform: p,
		Created:  at,
		Config: runtime{
			Env:        []string{"PATH=/usr/bin"},
			Entrypoint: []string{"/usr/bin/picket"},
			Cmd:        []string{"run", "--config", "/etc/picket/picket.toml", "--user", "picket"},
			Volumes:    map[string]struct{}{"/" + stateDir: {}},
			WorkingDir: "/",
			StopSignal: "SIGTERM",
			Labels:     labels,
		},
		RootFS:  rootFS{"layers", []string{diff}},
		History: []step{{at, "make oci"}},
	})
	if err != nil {
		return descriptor{}, docker{}, err
	}
	d, err := l.object(manifestType, manifest{2, manifestType, config, []descriptor{layer}})
	d.Platform = &p
	return d, docker{Config: blobPath(config), Layers: []string{blobPath(layer)}}, err
}

// layer packs a root file system, and returns the hash of its tar and the tar compressed. All belongs to root but the
// state directory.
func layer(dir string, created time.Time) (diff string, packed []byte, err error) {
	var compressed bytes.Buffer
	sum := sha256.New()
	z, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		return "", nil, err
	}
	w := tar.NewWriter(io.MultiWriter(sum, z))
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: name, ModTime: created, Format: tar.FormatUSTAR, Mode: 0o644}
		switch {
		case e.IsDir():
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, name+"/", 0o755
		case info.Mode()&fs.ModeSymlink != 0:
			h.Typeflag, h.Mode = tar.TypeSymlink, 0o777
			if h.Linkname, err = os.Readlink(path); err != nil {
				return err
			}
		case info.Mode().IsRegular():
			h.Typeflag, h.Size = tar.TypeReg, info.Size()
			if info.Mode()&0o111 != 0 {
				h.Mode = 0o755
			}
		default:
			return fmt.Errorf("%s is neither file, folder nor link", name)
		}
		switch name {
		case stateDir:
			h.Uid, h.Gid, h.Mode = picketID, picketID, 0o700
		case "tmp":
			h.Mode = 0o1777
		}
		if err := w.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = z.Close()
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), compressed.Bytes(), err
}
