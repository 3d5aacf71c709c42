package archive

import (
	"fmt"

	"github.com/aglq/aglq/queue/rawjson"
)

// Report says what an import has done.
type Report struct {
	Stored  Counts // taken in
	Present Counts // there already, the same
	// Conflicts were there already and differ, and were left as they are; Refused
	// could not be stored.
	Conflicts, Refused int64
	// Problems names conflicts and what was refused, the first thousand of
	// them.
	Problems []string
}

const maxProblems = 1000

// String says it in a line.
func (r *Report) String() string {
	return fmt.Sprintf("stored %s; there already: %s; conflicts: %d; refused: %d", r.Stored, r.Present, r.Conflicts, r.Refused)
}

// Nothing reports whether nothing was found that could be stored or compared.
func (r *Report) Nothing() bool {
	return r.Stored == Counts{} && r.Present == Counts{} && r.Conflicts+r.Refused == 0
}

// Unnamed is how many conflicts and refusals are not among the problems.
func (r *Report) Unnamed() int64 {
	return max(0, r.Conflicts+r.Refused-int64(len(r.Problems)))
}

// AppendJSON appends the report as an object.
func (r *Report) AppendJSON(dst []byte) []byte {
	dst = append(dst, `{"stored":`...)
	dst = r.Stored.AppendJSON(dst)
	dst = append(dst, `,"present":`...)
	dst = r.Present.AppendJSON(dst)
	dst = append(dst, `,"conflicts":`...)
	dst = rawjson.AppendInt(dst, r.Conflicts)
	dst = append(dst, `,"refused":`...)
	dst = rawjson.AppendInt(dst, r.Refused)
	dst = append(dst, `,"problems":[`...)
	for i, p := range r.Problems {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = rawjson.AppendString(dst, p)
	}
	return append(dst, ']', '}')
}

// DecodeReport reads what AppendJSON wrote.
func DecodeReport(v rawjson.Value) Report {
	r := Report{Stored: DecodeCounts(v.Get("stored")), Present: DecodeCounts(v.Get("present"))}
	r.Conflicts, _ = v.Get("conflicts").Int()
	r.Refused, _ = v.Get("refused").Int()
	for p := range v.Get("problems").Elements() {
		r.Problems = append(r.Problems, p.Text())
	}
	return r
}

func (r *Report) problem(format string, args ...any) {
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

func (r *Report) merge(o *Report) {
	mine, others := r.Stored.fields(), o.Stored.fields()
	for i := range mine {
		*mine[i].n += *others[i].n
	}
	mine, others = r.Present.fields(), o.Present.fields()
	for i := range mine {
		*mine[i].n += *others[i].n
	}
	r.Conflicts += o.Conflicts
	r.Refused += o.Refused
	r.Problems = append(r.Problems, o.Problems[:min(len(o.Problems), maxProblems-len(r.Problems))]...)
}
