package capture

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/pcapgo"
)

// TestFileAgainstPcapgo compares number, times, lengths and octets of frames
// with google/gopacket's own readers.
func TestFileAgainstPcapgo(t *testing.T) {
	for _, path := range captures(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			f, err := OpenFile(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			h, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			var ref gopacket.PacketDataSource
			if ref, err = pcapgo.NewReader(h); err != nil {
				h.Seek(0, io.SeekStart)
				ref, err = pcapgo.NewNgReader(h, pcapgo.NgReaderOptions{WantMixedLinkType: true})
			}
			if err != nil {
				t.Fatal(err)
			}
			var fr Frame
			for n := 1; ; n++ {
				data, ci, want := ref.ReadPacketData()
				err := f.Next(&fr)
				if (err == nil) != (want == nil) {
					t.Fatalf("frame %d: %v, pcapgo %v", n, err, want)
				}
				if err != nil {
					if err != io.EOF || want != io.EOF {
						t.Logf("frame %d: %v, pcapgo %v", n, err, want)
					}
					return
				}
				if string(data) != string(fr.Data) || ci.Length != fr.WireLen || ci.Timestamp.UnixNano() != fr.Time || ci.InterfaceIndex != fr.Interface {
					t.Fatalf("frame %d: %d octets of %d at %d, interface %d; pcapgo %+v at %d", n, len(fr.Data), fr.WireLen, fr.Time, fr.Interface, ci, ci.Timestamp.UnixNano())
				}
			}
		})
	}
}
