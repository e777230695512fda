package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/zrdma/zrdma/internal/perf"
)

// reports is where the results of bench go: what is printed, and files. A file is
// written whole after every case, so that nothing is lost when the program is.
type reports struct {
	out, errOut io.Writer
	format      string
	files       []reportFile
	printed     int   // cases in the table
	outErr      error // the first of writing to out
}

type reportFile struct {
	name  string
	write func(*perf.Report, io.Writer) error
}

// openReports looks whether the files can be written before anything is measured.
func (f *benchFlags) openReports(out, errOut io.Writer) (*reports, error) {
	w := &reports{out: out, errOut: errOut, format: f.format}
	for _, x := range []reportFile{{f.json, (*perf.Report).WriteJSON}, {f.csv, (*perf.Report).WriteCSV}, {f.htmlFile, writeHTML}} {
		if x.name == "" {
			continue
		}
		h, err := os.OpenFile(x.name, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return nil, coded{fmt.Errorf("the report cannot be written: %w", err), ExitReport}
		}
		if err := h.Close(); err != nil {
			return nil, coded{fmt.Errorf("the report cannot be written: %w", err), ExitReport}
		}
		w.files = append(w.files, x)
	}
	return w, nil
}

// add tells of the last case in rep.
func (w *reports) add(rep *perf.Report) {
	if w.format == "table" {
		text := ""
		if w.printed == 0 {
			text = heading(rep) + perf.TableHead()
		}
		w.printed++
		w.print(text + rep.Results[len(rep.Results)-1].TableLine())
	}
	so := *rep
	so.Ended = "under way"
	for _, x := range w.files {
		_ = x.save(&so) // finish says what does not work
	}
}

func heading(r *perf.Report) string {
	end := func(h perf.Host) string { return fmt.Sprintf("%s port %d, %s, MTU %d", h.Device, h.Port, h.GID, h.MTU) }
	s := fmt.Sprintf("client %s (%s), server %s (%s)\n", r.Client.Name, end(r.Client), r.Server.Name, end(r.Server))
	if r.Client.StandIn || r.Server.StandIn {
		s += "The software device is a stand-in: it copies every byte, and its figures say nothing of a NIC.\n"
	}
	if r.OneHost {
		s += "Both ends are in one process: the client's processor time is that of both.\n"
	}
	return s
}

func (w *reports) print(text string) {
	if w.outErr == nil {
		_, w.outErr = io.WriteString(w.out, text)
	}
}

// save writes the file whole. A regular one is replaced, so that it is never half.
func (x *reportFile) save(rep *perf.Report) error {
	var b bytes.Buffer
	if err := x.write(rep, &b); err != nil {
		return err
	}
	if st, err := os.Lstat(x.name); err != nil || !st.Mode().IsRegular() {
		return writeTo(x.name, b.Bytes())
	}
	t, err := os.CreateTemp(filepath.Dir(x.name), filepath.Base(x.name)+".*")
	if err != nil {
		return writeTo(x.name, b.Bytes()) // the folder may not be ours
	}
	_, err = t.Write(b.Bytes())
	err = errors.Join(err, t.Chmod(0o644), t.Close())
	if err == nil {
		err = os.Rename(t.Name(), x.name)
	}
	if err != nil {
		os.Remove(t.Name())
	}
	return err
}

func writeTo(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// finish writes all there is. What could not be written is printed instead, so
// that it is not lost.
func (w *reports) finish(rep *perf.Report) error {
	var errs []error
	for _, x := range w.files {
		if err := x.save(rep); err != nil {
			errs = append(errs, fmt.Errorf("the report %s: %w", x.name, err))
		}
	}
	switch w.format {
	case "json":
		w.outErr = rep.WriteJSON(w.out)
	case "csv":
		w.outErr = rep.WriteCSV(w.out)
	}
	if len(errs) > 0 && w.outErr == nil && w.format != "json" {
		fmt.Fprintln(w.errOut, "The report follows, for it could not be written where you asked.")
		w.outErr = rep.WriteJSON(w.out)
	}
	if w.outErr != nil {
		errs = append(errs, fmt.Errorf("the results could not be printed: %w", w.outErr))
		_ = rep.WriteTable(w.errOut)
	}
	return errors.Join(errs...)
}
