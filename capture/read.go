package capture

import "context"

// Read decodes the frames of src and hands each to take with its outcome; p is
// valid when that has a packet, both until take returns. It ends with the first
// error: of src (io.EOF after the last frame), of take, or of ctx.
func Read(ctx context.Context, src Source, d *Decoder, take func(f *Frame, p *Packet, o Outcome) error) error {
	var f Frame
	var p Packet
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := src.Next(&f); err != nil {
			return err
		}
		if err := take(&f, &p, d.Decode(&f, &p)); err != nil {
			return err
		}
	}
}
