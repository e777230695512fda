// Package cpio writes the archive format the kernel unpacks as its initramfs:
// "newc", the new portable format without checksums.
//
// Ownership: the caller keeps the io.Writer. Concurrency: a Writer belongs to
// one goroutine. Blocking: as the io.Writer does. Cleanup: Close writes the
// trailer and closes nothing.
package cpio

import (
	"fmt"
	"io"
	"path"
	"strings"
)

// File types, as in stat(2).
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
	typeChar = 0o020000
)

// Writer makes one archive.
type Writer struct {
	w    io.Writer
	n    int64 // bytes written, for the padding
	ino  uint32
	dirs map[string]bool
	err  error
}

// NewWriter writes an archive to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, dirs: make(map[string]bool)}
}

// File adds a regular file and the folders above it.
func (w *Writer) File(name string, perm uint32, data []byte) error {
	w.Dir(path.Dir(clean(name)))
	return w.entry(name, typeFile|perm&0o7777, 0, 0, data)
}

// Dir adds a folder, mode 0755, and the folders above it. Twice is once.
func (w *Writer) Dir(name string) error {
	name = clean(name)
	if name == "." || w.dirs[name] {
		return w.err
	}
	w.Dir(path.Dir(name))
	w.dirs[name] = true
	return w.entry(name, typeDir|0o755, 0, 0, nil)
}

// Symlink adds a symbolic link.
func (w *Writer) Symlink(name, target string) error {
	w.Dir(path.Dir(clean(name)))
	return w.entry(name, typeLink|0o777, 0, 0, []byte(target))
}

// CharDev adds a character device node.
func (w *Writer) CharDev(name string, perm, major, minor uint32) error {
	w.Dir(path.Dir(clean(name)))
	return w.entry(name, typeChar|perm&0o7777, major, minor, nil)
}

// Close writes the trailer.
func (w *Writer) Close() error {
	w.ino = 0xffffffff // the trailer's number is 0 after the increment
	return w.entry("TRAILER!!!", 0, 0, 0, nil)
}

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/") + dotIfRoot(name)
}

func dotIfRoot(name string) string {
	if path.Clean("/"+name) == "/" {
		return "."
	}
	return ""
}

func (w *Writer) entry(name string, mode, major, minor uint32, data []byte) error {
	if w.err != nil {
		return w.err
	}
	if int64(len(data)) > 0xffffffff {
		return fmt.Errorf("cpio: %s: %d bytes do not fit the format", name, len(data))
	}
	w.ino++
	name = clean(name)
	links := 1
	if mode&typeDir != 0 && mode&typeFile != typeFile {
		links = 2
	}
	// magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		w.ino, mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	w.write([]byte(head))
	w.pad()
	w.write(data)
	w.pad()
	return w.err
}

func (w *Writer) write(b []byte) {
	if w.err != nil {
		return
	}
	n, err := w.w.Write(b)
	w.n += int64(n)
	if err != nil {
		w.err = fmt.Errorf("cpio: %w", err)
	}
}

func (w *Writer) pad() { w.write(make([]byte, (4-w.n%4)%4)) }
