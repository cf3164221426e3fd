package capture

const (
	// orderSpan is how far frames may lie out of the order of their times and be put
	// right: what the queues of a network card and the two ports of a mirror do.
	orderSpan = 2_000_000 // ns
	maxHeld   = 128       // frames, a power of two
	// largestHeld bounds the memory that held frames take: larger ones do not wait.
	largestHeld = 4096
)

// sorter holds frames for orderSpan of their own time and hands them on by time; frames
// of the same time keep their order. What lies further back is handed on as it comes.
type sorter struct {
	slots   [maxHeld]Frame // each with Data of its own
	queue   [maxHeld]uint8 // slots by time, from head on; behind them the free ones
	head, n int
	ready   bool
}

func (o *sorter) at(k int) *Frame { return &o.slots[o.queue[(o.head+k)%maxHeld]] }

// add takes a frame, which it copies, and hands on what has waited long enough.
func (o *sorter) add(f *Frame, take func(*Frame) error) error {
	if !o.ready {
		for k := range o.queue {
			o.queue[k] = uint8(k)
		}
		o.ready = true
	}
	if o.n > 0 && f.Time < o.at(o.n-1).Time-orderSpan || len(f.Data) > largestHeld {
		if err := o.flush(take); err != nil {
			return err
		}
	}
	if len(f.Data) > largestHeld {
		return take(f)
	}
	for o.n > 0 && (o.n == maxHeld || f.Time-o.at(0).Time >= orderSpan) {
		if err := o.pop(take); err != nil {
			return err
		}
	}
	slot := o.queue[(o.head+o.n)%maxHeld]
	s := &o.slots[slot]
	data := append(s.Data[:0], f.Data...)
	*s = *f
	s.Data = data
	k := o.n
	for ; k > 0 && o.at(k-1).Time > f.Time; k-- {
		o.queue[(o.head+k)%maxHeld] = o.queue[(o.head+k-1)%maxHeld]
	}
	o.queue[(o.head+k)%maxHeld] = slot
	o.n++
	return nil
}

func (o *sorter) pop(take func(*Frame) error) error {
	f := o.at(0)
	o.head = (o.head + 1) % maxHeld
	o.n--
	return take(f)
}

// flush hands on all that waits.
func (o *sorter) flush(take func(*Frame) error) error {
	for o.n > 0 {
		if err := o.pop(take); err != nil {
			return err
		}
	}
	return nil
}
