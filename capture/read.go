package capture

import "context"

// Read decodes the frames of src and hands each to take with its outcome; p is
// valid when that has a packet, both until take returns. When src says that it is
// quiet, quiet gets the time that it names; nil where no source does. It ends with the
// first error: of src (io.EOF after the last frame), of take and quiet, or of ctx.
func Read(ctx context.Context, src Source, d *Decoder, take func(f *Frame, p *Packet, o Outcome) error, quiet func(now int64) error) error {
	var f Frame
	var p Packet
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		err := src.Next(&f)
		switch {
		case err == nil:
			err = take(&f, &p, d.Decode(&f, &p))
		case err == ErrQuiet && quiet != nil:
			n = -1 // which may take long: ask ctx next
			err = quiet(f.Time)
		}
		if err != nil {
			return err
		}
	}
}
