package spool

import "slices"

// counts are since Open.
type counts struct {
	appended, acked uint64
	torn, tornBytes uint64
	syncs, written  uint64
	syncErrors      uint64
}

// Stats is the state of a queue. Dropped, Corrupt and Gaps survive restarts; the
// other counters are since Open.
type Stats struct {
	Next     uint64 `json:"next"`      // sequence number that the next entry gets
	Oldest   uint64 `json:"oldest"`    // that is not acknowledged; Next when there is none
	Pending  uint64 `json:"pending"`   // entries not acknowledged
	InFlight uint64 `json:"in_flight"` // of these, handed out
	Bytes    int64  `json:"bytes"`     // on disk
	MaxBytes int64  `json:"max_bytes"` // Config's, or what the file system allows

	Dropped uint64 `json:"dropped"` // entries lost for want of room since the queue was created
	Corrupt uint64 `json:"corrupt"` // entries lost to damage of the disk
	Gaps    []Gap  `json:"gaps"`    // which these were: the last 32 runs

	Appended   uint64 `json:"appended"`
	Acked      uint64 `json:"acked"`
	Torn       uint64 `json:"torn"`       // incomplete writes found and cut off
	TornBytes  uint64 `json:"torn_bytes"` // of these
	Syncs      uint64 `json:"syncs"`      // of files
	SyncErrors uint64 `json:"sync_errors"`
	Written    uint64 `json:"written"` // bytes

	// Err is why the queue cannot be written at present, nil when it can: that is
	// tried every few seconds.
	Err error `json:"-"`
}

// Stats returns the state of the queue. It works after Close too.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	st := &q.state
	return Stats{
		Next:       q.next,
		Oldest:     st.cursor,
		Pending:    q.next - st.cursor - st.done.below(q.next),
		InFlight:   q.inFlight(),
		Bytes:      q.bytes,
		MaxBytes:   q.maxBytes,
		Dropped:    st.dropped,
		Corrupt:    st.corrupt,
		Gaps:       slices.Clone(st.gaps),
		Appended:   q.counts.appended,
		Acked:      q.counts.acked,
		Torn:       q.counts.torn,
		TornBytes:  q.counts.tornBytes,
		Syncs:      q.counts.syncs,
		SyncErrors: q.counts.syncErrors,
		Written:    q.counts.written,
		Err:        q.failure,
	}
}
