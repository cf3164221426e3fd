// Package sandbox gives up what the daemon no longer needs once its sockets are
// open: its user, its capabilities but CAP_NET_RAW, and the files that are none of
// its business.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
)

// Paths are what stays accessible after Restrict: files, and directories with all
// that is in them, then and later.
type Paths struct {
	ReadOnly  []string // what does not exist is left out
	ReadWrite []string // has to exist
}

// Lookup returns the ids of "USER" or "USER:GROUP", names or numbers. The group is
// the user's primary one unless named.
func Lookup(spec string) (uid, gid int, err error) {
	name, group, named := strings.Cut(spec, ":")
	u, err := user.Lookup(name)
	if err != nil {
		// A number is good without an entry in the user database, as in a container.
		if uid, err = id(name); err != nil {
			return 0, 0, fmt.Errorf("user %q: no such user", name)
		}
		u, err = user.LookupId(name)
	}
	if err == nil {
		if uid, err = id(u.Uid); err == nil {
			gid, err = id(u.Gid)
		}
	}
	if !named {
		if err != nil {
			return 0, 0, fmt.Errorf("user %q: its group is not known; name it: %s:GROUP", name, name)
		}
		return uid, gid, nil
	}
	if gid, err = id(group); err == nil {
		return uid, gid, nil
	}
	g, err := user.LookupGroup(group)
	if err == nil {
		gid, err = id(g.Gid)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("group %q: no such group", group)
	}
	return uid, gid, nil
}

// id takes no more than 31 bits: the last of 32 means none to the kernel.
func id(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	return int(n), err
}

// Dirs returns the directories that a file is found in, those of the targets of
// symbolic links included, for Paths: what is renewed by a rename stays accessible. A
// file of the root directory is returned as itself.
func Dirs(file string) []string {
	var all []string
	for range 40 { // as many links as Linux follows
		if dir := filepath.Dir(file); dir != "/" {
			all = append(all, dir)
		} else {
			all = append(all, file)
		}
		target, err := os.Readlink(file)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			// What .. means depends on where the directory really is.
			dir, err := filepath.EvalSymlinks(filepath.Dir(file))
			if err != nil {
				break
			}
			target = filepath.Join(dir, target)
		}
		file = target
	}
	return all
}

var errNotRoot = errors.New("this process may not change its user; start it as root, or let the service manager set the user")
