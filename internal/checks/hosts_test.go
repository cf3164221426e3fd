package checks

import (
	"cmp"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/picket-ids/picket/internal/datatest"
)

// TestHosts compares the rows of host windows with those of hosts_check.py. $PICKET_DPKT is a Python that has dpkt.
func TestHosts(t *testing.T) {
	data := filepath.Dir(datatest.Data(t, "captures"))
	python := cmp.Or(os.Getenv("PICKET_DPKT"), "python3")
	if out, err := exec.Command(python, "-c", "import dpkt").CombinedOutput(); err != nil {
		if os.Getenv("CI_REQUIRE_DPKT") == "1" {
			t.Fatalf("no dpkt: %v: %s", err, out)
		}
		t.Skipf("no dpkt: %v: %s", err, out)
	}
	bin := filepath.Join(t.TempDir(), "picket")
	if out, err := exec.Command("go", "build", "-o", bin, "../../cmd/picket").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	check := exec.Command(python, "hosts_check.py")
	check.Env = append(os.Environ(), "PICKET="+bin, "PICKET_DATA="+data)
	out, err := check.CombinedOutput()
	t.Logf("%s", out)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		t.Error("columns differ, or the check did not run")
	} else if err != nil {
		t.Fatal(err)
	}
}
