package cgagent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

const (
	fileLimit      = 1 << 20
	mountinfoLimit = 64 << 20 // 10,000 overlayfs mounts with long lower directories are some 20 MB
)

// A tree is the machine ("") or the directory of a captured one. The root is fixed: only tests have another.
type tree string

// errVanished tells of a file whose cgroup was removed while it was open: kernfs says ENODEV.
var errVanished = errors.New("vanished")

// read returns the text of a regular file; ok is false where there is no such file.
func (t tree) read(path string, limit int64) (text string, ok bool, err error) {
	// O_NONBLOCK: a FIFO in a captured tree must not hold us.
	file, err := os.OpenFile(string(t)+path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err == nil {
		defer file.Close()
		text, err = readAll(file, limit)
	}
	switch {
	case err == nil:
		return text, true, nil
	case isAny(err, syscall.ENOENT, syscall.ENOTDIR, syscall.EOPNOTSUPP, syscall.ENAMETOOLONG):
		return "", false, nil
	case isAny(err, syscall.ENODEV, syscall.ESRCH):
		err = errVanished
	}
	return "", false, fmt.Errorf("cannot read %s: %w", path, err)
}

func readAll(file *os.File, limit int64) (string, error) {
	status, err := file.Stat()
	if err != nil {
		return "", err
	}
	if !status.Mode().IsRegular() {
		return "", errors.New("not a regular file")
	}
	// No size is asked for: procfs and cgroupfs say 0 or 4096 whatever the file holds.
	data, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("more than %d bytes", limit)
	}
	return string(data), err
}

func isAny(err error, numbers ...syscall.Errno) bool {
	for _, number := range numbers {
		if errors.Is(err, number) {
			return true
		}
	}
	return false
}

func (t tree) isDirectory(path string) bool {
	status, err := os.Stat(string(t) + path)
	return err == nil && status.IsDir()
}
