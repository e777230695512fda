package softroce

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zrdma/zrdma/test/softroce/internal/agent"
)

// CopyOut copies a file or a tree out of the guest; hostPath is its new name.
// Nothing is written outside hostPath.
func (h *Host) CopyOut(ctx context.Context, guestPath, hostPath string) error {
	if !filepath.IsAbs(guestPath) {
		dir, err := os.Getwd() // guests start programs here too
		if err != nil {
			return h.wrap("copy out", nil, err)
		}
		guestPath = filepath.Join(dir, guestPath)
	}
	guestPath = filepath.Clean(guestPath)
	r, w := io.Pipe()
	cmd := h.Command(ctx, "copy out "+guestPath)
	cmd.Stdout = w
	if err := cmd.start(agent.Request{Files: guestPath}); err != nil {
		return err
	}
	unpacked := make(chan error, 1)
	go func() {
		err := unpack(r, filepath.Base(guestPath), hostPath)
		_ = r.CloseWithError(err) // lets the sender go on if we failed
		unpacked <- err
	}()
	err := cmd.Wait()
	_ = w.CloseWithError(err) // nil is the end of the file
	if uerr := <-unpacked; err == nil && uerr != nil {
		err = h.wrap("copy out", nil, uerr)
	}
	return err
}

func unpack(r io.Reader, base, hostPath string) error {
	// A guest is not trusted to name files: names below base only, and os.Root
	// follows no link out of the folder.
	parent, name := filepath.Split(filepath.Clean(hostPath))
	if parent == "" {
		parent = "."
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(parent)
	if err != nil {
		return err
	}
	defer root.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(base, filepath.Clean(h.Name))
		if err != nil || !filepath.IsLocal(rel) {
			return fmt.Errorf("unexpected name %q", h.Name)
		}
		if err := unpackOne(root, tr, h, filepath.Join(name, rel)); err != nil {
			return err
		}
	}
}

func unpackOne(root *os.Root, r io.Reader, h *tar.Header, name string) error {
	mode := os.FileMode(h.Mode).Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, mode|0o700)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
	return nil
}
