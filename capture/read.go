package capture

import "context"

// Read decodes the frames of src and hands each to take with its outcome; p is
// valid when that has a packet, both until take returns. Frames that lie up to 2 ms out of
// the order of their times are put in it, and wait for as long. Second copies that a mirror
// makes get the outcome Copy. When src says that it is quiet, quiet gets the time that it
// names; nil where no source does. It ends with the first error: of src (io.EOF after the
// last frame), of take and quiet, or of ctx.
func Read(ctx context.Context, src Source, d *Decoder, take func(f *Frame, p *Packet, o Outcome) error,
	quiet func(now int64) error) error {
	var f Frame
	var p Packet
	var held sorter
	decode := func(f *Frame) error {
		o := d.Decode(f, &p)
		if d.Mirrors.see(f, &p, o) {
			d.Counts[o]--
			o, p.ARP = Copy, nil
			d.Counts[o]++
		}
		return take(f, &p, o)
	}
	d.Mirrors.begin()
	for n := 0; ; n++ {
		var err error
		if n%1024 == 0 {
			err = ctx.Err()
		}
		if err == nil {
			err = src.Next(&f)
		}
		if err == nil {
			err = held.add(&f, decode)
			if err != nil {
				return err
			}
			continue
		}
		if err := held.flush(decode); err != nil {
			return err
		}
		if err != ErrQuiet || quiet == nil {
			return err
		}
		n = -1 // which may take long: ask ctx next
		if err := quiet(f.Time); err != nil {
			return err
		}
	}
}
