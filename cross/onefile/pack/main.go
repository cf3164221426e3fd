// Pack writes the delivery in one file: pack OUT LAUNCHER FOLDER COMMAND [ARGUMENT]...
package main

import (
	"fmt"
	"os"

	"github.com/picket-ids/picket/cross/onefile"
)

func main() {
	if err := pack(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func pack(args []string) (err error) {
	if len(args) < 4 {
		return fmt.Errorf("usage: pack OUT LAUNCHER FOLDER COMMAND [ARGUMENTS]")
	}
	launcher, err := os.Open(args[1])
	if err != nil {
		return err
	}
	defer launcher.Close()
	out, err := os.OpenFile(args[0]+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	err = onefile.Write(out, launcher, args[2], args[3:]...)
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(args[0]+".new", args[0])
}
