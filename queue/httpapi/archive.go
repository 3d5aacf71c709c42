package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/aglq/aglq/collections/archive"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

// Archive moves the whole of a store in and out.
type Archive interface {
	// Export writes all there is to w.
	Export(ctx context.Context, w io.Writer) (archive.Counts, error)
	// Import stores what r holds; the report is right with an error too.
	Import(ctx context.Context, r io.Reader, merge bool) (archive.Report, error)
}

var archiveType = []string{"application/zstd"}

var errNoArchive = queue.Errorf(queue.NotFound, "this server moves no archives")

// exportArchive streams. When something fails on the way, the archive itself says
// so, for the status has been sent.
func (c *call) exportArchive() error {
	if c.server.options.Archive == nil {
		return errNoArchive
	}
	c.readUntil(time.Time{}) // a client that only reads is not gone
	w := &archiveAnswer{c: c}
	counts, err := c.server.options.Archive.Export(c.ctx(), w)
	w.writeUntil(time.Time{})
	switch {
	case err != nil && c.w.status == 0:
		return err
	case c.r.Context().Err() != nil || w.failed:
		c.gone()
	case err != nil:
		c.server.log.Error("archive not finished", "error", err)
	default:
		c.server.log.Info("archive exported", "rollouts", counts.Rollouts, "spans", counts.Spans)
	}
	return nil
}

// archiveAnswer sends the head of the answer with its first bytes, and waits for
// no client that takes nothing.
type archiveAnswer struct {
	c      *call
	failed bool
}

// Write implements io.Writer.
func (a *archiveAnswer) Write(p []byte) (int, error) {
	c := a.c
	if c.w.status == 0 {
		c.w.Header()["Content-Type"] = archiveType
		c.w.WriteHeader(http.StatusOK)
	}
	a.writeUntil(time.Now().Add(c.server.options.BodyStall))
	n, err := c.w.Write(p)
	a.failed = a.failed || err != nil
	return n, err
}

func (a *archiveAnswer) writeUntil(t time.Time) {
	// Without a connection there is no deadline to move.
	_ = http.NewResponseController(a.c.w.ResponseWriter).SetWriteDeadline(t)
}

// importArchive takes a body of any size, as long as it keeps coming.
func (c *call) importArchive() error {
	if c.server.options.Archive == nil {
		return errNoArchive
	}
	merge, err := c.flag("merge")
	if err != nil {
		return err
	}
	report, err := c.server.options.Archive.Import(c.ctx(), &archiveBody{c: c}, merge)
	c.readUntil(time.Time{})
	if err == nil {
		c.server.log.Info("archive imported", "stored", report.Stored.String(), "conflicts", report.Conflicts, "refused", report.Refused)
		return c.reply(http.StatusOK, report.AppendJSON)
	}
	var broken errBody
	if report.Nothing() || c.r.Context().Err() != nil || errors.As(err, &broken) {
		return err
	}
	c.server.log.Warn("archive imported in part", "stored", report.Stored.String(), "error", err)
	c.w.Header().Set("Connection", "close") // the rest of the body is not read
	return c.reply(statusOf(err), func(dst []byte) []byte {
		dst = append(dst, `{"detail":`...)
		dst = rawjson.AppendString(dst, err.Error())
		dst = append(dst, `,"report":`...)
		return append(report.AppendJSON(dst), '}')
	})
}

// flag is a parameter of the query that is true or false, false where absent.
func (c *call) flag(name string) (bool, error) {
	text := c.r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	var v checker
	at := inQuery.at(name)
	value := v.bool(&at, rawjson.AppendString(nil, text))
	return value, v.err()
}

// archiveBody gives each read its own time. The import may take longer than that
// between two of them.
type archiveBody struct{ c *call }

// Read implements io.Reader.
func (b *archiveBody) Read(p []byte) (int, error) {
	b.c.readUntil(time.Now().Add(b.c.server.options.BodyStall))
	n, err := b.c.r.Body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = errBody{err}
	}
	return n, err
}

// importReport is the schema of archive.Report.
func importReport() schema {
	counts := object("resources", integer, "workers", integer, "rollouts", integer, "attempts", integer, "spans", integer)
	return object("stored", counts, "present", counts, "conflicts", integer, "refused", integer, "problems", array(text))
}
