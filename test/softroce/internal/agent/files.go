//go:build unix

package agent

import (
	"archive/tar"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// files serves Request.Files: a tar stream on stdout, names relative to the
// asked path's parent, errors in the Status.
func (t *task) files() Status {
	if _, err := os.Lstat(t.req.Files); err != nil {
		return t.refuse(err)
	}
	_ = t.fw.writeJSON(kindStarted, t.id, startReply{}) // Serve sees a broken connection itself
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeTar(w, t.req.Files)) }()
	err := t.out[1].copyFrom(r)
	_ = r.CloseWithError(err) // stops writeTar if the connection broke
	_ = t.fw.write(kindEOF, t.id, []byte{2})
	if err != nil {
		return Status{Code: 1, Err: err.Error()}
	}
	return Status{}
}

func writeTar(w io.Writer, root string) error {
	tw := tar.NewWriter(w)
	base := filepath.Dir(root)
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&os.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		if info.Mode()&(os.ModeSocket|os.ModeDevice|os.ModeNamedPipe) != 0 {
			return nil // has no content to copy
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(base, path); err != nil {
			return err
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		return addFile(tw, path, h.Size)
	})
	if err != nil {
		return fmt.Errorf("copy out %s: %w", root, err)
	}
	return tw.Close()
}

func addFile(tw *tar.Writer, path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// A file that grows meanwhile must not break the archive.
	_, err = io.CopyN(tw, f, size)
	return err
}
