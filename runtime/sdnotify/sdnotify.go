// Package sdnotify tells systemd how the daemon does, for units of Type=notify and
// notify-reload and for WatchdogSec=. Without systemd, that is without $NOTIFY_SOCKET,
// it does nothing.
package sdnotify

import (
	"fmt"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that start, or a reload, is done; status is a line for people.
func Ready(status string) error { return notify(daemon.SdNotifyReady, line(status)) }

// Status gives systemctl status a line for people.
func Status(text string) error { return notify(line(text)) }

// Reloading says that a reload begins; Ready ends it.
func Reloading() error { return notify(daemon.SdNotifyReloading, monotonic()) }

// Stopping says that the process ends.
func Stopping(status string) error { return notify(daemon.SdNotifyStopping, line(status)) }

// line keeps text from being more than a status.
func line(text string) string {
	return "STATUS=" + strings.NewReplacer("\n", " ", "\r", " ").Replace(text)
}

func notify(assignments ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(assignments, "\n")); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}

// Watchdog tells systemd again and again that the process works, so that it is
// restarted when it does not.
type Watchdog struct {
	interval   time.Duration
	stop, done chan struct{}
}

// StartWatchdog begins to ask alive, if systemd waits for signs of life
// (WatchdogSec=), and passes each yes on. It asks every quarter of that time, so that
// up to two that were a no, or late, are forgiven. alive is called from one goroutine.
func StartWatchdog(alive func() bool) (*Watchdog, error) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return nil, fmt.Errorf("watchdog of systemd: %w", err)
	}
	w := &Watchdog{interval: interval, stop: make(chan struct{}), done: make(chan struct{})}
	if interval == 0 {
		close(w.done)
		return w, nil
	}
	go w.feed(alive)
	return w, nil
}

func (w *Watchdog) feed(alive func() bool) {
	defer close(w.done)
	t := time.NewTicker(max(w.interval/4, 1))
	defer t.Stop()
	for {
		if alive() {
			// Who cannot hear it restarts the process, and shows that as the reason.
			_ = notify(daemon.SdNotifyWatchdog)
		}
		select {
		case <-t.C:
		case <-w.stop:
			return
		}
	}
}

// Interval is how long systemd waits for a sign of life; 0: it does not.
func (w *Watchdog) Interval() time.Duration { return w.interval }

// Stop ends the signs of life, after a call of alive under way. One call only.
func (w *Watchdog) Stop() {
	close(w.stop)
	<-w.done
}
