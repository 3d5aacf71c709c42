package operator

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/aglq/aglq/queue"
)

// unboundedRows is how many rows a table has where the height is no limit.
const unboundedRows = 20

// Lines draws the view: at most height lines, 0 for as many as there are, each
// at most width columns, 0 for as wide as it gets. All text is printable.
func (v View) Lines(width, height int) []string {
	var lines []string
	for _, line := range v.summary() {
		lines = append(lines, wrap(line, width)...)
	}
	if most := max(1, height/2); height > 0 && len(lines) > most { // the tables want room, too
		lines = v.shortSummary()
		lines = lines[:min(len(lines), most)]
	}
	tables := []grid{v.workerGrid(), v.runningGrid(), v.errorGrid()}
	room := height - len(lines)
	if height > 0 && room <= 0 {
		tables = nil
	}
	for i, rows := range share(room, tables) {
		if rows >= 0 {
			lines = append(lines, tables[i].lines(rows)...)
		}
	}
	if height > 0 && len(lines) > height {
		lines = lines[:height]
	}
	if width > 0 {
		for i := range lines {
			lines[i] = cut(lines[i], width)
		}
	}
	return lines
}

// share gives each table its number of rows, -1 for no table at all: one that has
// rows shows at least one. It takes two lines besides, a gap and its head.
func share(lines int, tables []grid) []int {
	const frame = 2
	rows := make([]int, len(tables))
	for i := range rows {
		rows[i] = -1
	}
	if lines <= 0 { // no limit
		for i, t := range tables {
			rows[i] = min(len(t.rows), unboundedRows)
		}
		return rows
	}
	for i, t := range tables {
		least := min(1, len(t.rows))
		if lines < frame+least {
			break
		}
		rows[i] = least
		lines -= frame + least
	}
	for given := true; given && lines > 0; { // a row each in turn
		given = false
		for i, t := range tables {
			if lines > 0 && rows[i] < len(t.rows) {
				rows[i]++
				lines--
				given = true
			}
		}
	}
	return rows
}

func (v View) summary() []string {
	st := v.Statistics
	counts := []string{these(int(st.Rollouts), "rollout", "rollouts")}
	for _, status := range queue.RolloutStatuses {
		if st.ByStatus == nil {
			break // the reference's store does not count them
		}
		if n := st.ByStatus[status]; n > 0 || status == queue.RolloutQueuing || status == queue.RolloutRunning {
			counts = append(counts, group(n)+" "+string(status))
		}
	}
	reward := ""
	if v.Rewarded > 0 {
		reward = fmt.Sprintf("  mean reward %.4g of the last %d", v.Reward, v.Rewarded)
	}
	return []string{
		fmt.Sprintf("up %s  %s", short(st.Uptime.Seconds()), v.Time.Format("15:04:05")),
		"queue    " + strings.Join(counts, ", "),
		fmt.Sprintf("rates    %s enqueued, %s finished, %s spans a second%s", rate(v.Enqueued), rate(v.Finished), rate(v.Spans), reward),
		fmt.Sprintf("workers  %d known, %d alive, %d busy", v.Known, v.Alive, v.Busy),
	}
}

// shortSummary is for low terminals: a line each, the most important first.
func (v View) shortSummary() []string {
	st := v.Statistics
	first := these(int(st.Rollouts), "rollout", "rollouts")
	if n := st.ByStatus; n != nil {
		first = fmt.Sprintf("%s queued, %s at work, %s failed", group(n[queue.RolloutQueuing]+n[queue.RolloutRequeuing]),
			group(n[queue.RolloutPreparing]+n[queue.RolloutRunning]), group(n[queue.RolloutFailed]))
	}
	return []string{
		first,
		fmt.Sprintf("%d of %s alive, %d busy", v.Alive, these(v.Known, "worker", "workers"), v.Busy),
		fmt.Sprintf("%s in, %s out a second", rate(v.Enqueued), rate(v.Finished)),
	}
}

func (v View) workerGrid() grid {
	g := grid{title: "WORKER", columns: []string{"DOES", "SIGN", "FOR", "ROLLOUT"}}
	now := queue.Seconds(v.Time)
	for _, w := range v.Workers {
		does, since, rollout := string(w.Status), w.LastIdleTime, ""
		seen := w.LastSeen()
		switch {
		case w.Stopped():
			does, since = "ended", &seen
		case !v.alive(&w):
			does, since = "silent", &seen
		case w.Status == queue.WorkerBusy:
			since = w.LastBusyTime
		}
		if w.CurrentRolloutID != nil {
			rollout = *w.CurrentRolloutID
		}
		g.add(w.WorkerID, does, ago(now, &seen), ago(now, since), rollout)
	}
	return g
}

func (v View) runningGrid() grid {
	g := grid{title: "SLOWEST", columns: []string{"ATTEMPT", "FOR", "SIGN", "WORKER", "INPUT"}}
	now := queue.Seconds(v.Time)
	for _, r := range v.Running {
		if a := r.Attempt; a == nil {
			g.add(r.RolloutID, "none", "", "", "", r.Input.String())
		} else {
			worker := ""
			if a.WorkerID != nil {
				worker = *a.WorkerID
			}
			g.add(r.RolloutID, fmt.Sprintf("%d %s", a.SequenceID, a.Status), ago(now, &a.StartTime), ago(now, a.LastHeartbeatTime),
				worker, r.Input.String())
		}
	}
	return g
}

func (v View) errorGrid() grid {
	g := grid{title: "FAILING", columns: []string{"TIMES", "ERROR"}}
	for _, e := range v.Errors {
		g.add(e.RolloutID, strconv.Itoa(e.Count), e.Text)
	}
	return g
}

// grid is a table whose first column is named by its title.
type grid struct {
	title   string
	columns []string
	rows    [][]string
}

func (g *grid) add(cells ...string) {
	for i, c := range cells {
		if cells[i] = cut(printable(c), 200); cells[i] == "" {
			cells[i] = "-"
		}
	}
	g.rows = append(g.rows, cells)
}

// lines draws the first rows; what is left out is counted in the title.
func (g grid) lines(rows int) []string {
	head := append([]string{g.title}, g.columns...)
	shown := append([][]string{head}, g.rows[:rows]...)
	wide := make([]int, len(head))
	for _, row := range shown {
		for i, c := range row {
			wide[i] = max(wide[i], columns(c))
		}
	}
	out := []string{""}
	for n, row := range shown {
		var b strings.Builder
		for i, c := range row {
			b.WriteString(c)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", wide[i]-columns(c)+2))
			}
		}
		if n == 0 && rows < len(g.rows) {
			fmt.Fprintf(&b, "  (%d of %d)", rows, len(g.rows))
		}
		out = append(out, b.String())
	}
	return out
}

// printable keeps text of strangers from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}

// columns is how many columns of a terminal s takes.
func columns(s string) (n int) {
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func runeColumns(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me):
		return 0
	case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul),
		r >= 0xFF01 && r <= 0xFF60, r >= 0x1F300 && r <= 0x1FAFF:
		return 2
	}
	return 1
}

// wrap breaks a line of the summary at spaces, so that what follows stays behind
// its name.
func wrap(line string, width int) []string {
	const indent = 9
	if width <= 2*indent {
		return []string{line}
	}
	var out []string
	for columns(line) > width {
		at := strings.LastIndexByte(line[:width+1], ' ')
		if at <= indent {
			break
		}
		out = append(out, strings.TrimRight(line[:at], " "))
		line = strings.Repeat(" ", indent) + strings.TrimLeft(line[at:], " ")
	}
	return append(out, line)
}

// cut shortens s to so many columns.
func cut(s string, width int) string {
	n, before := 0, 0 // columns so far; where the last column but one ends
	for i, r := range s {
		w := runeColumns(r)
		if n+w > width {
			return s[:before] + "…"
		}
		if n += w; n <= width-1 {
			before = i + len(string(r))
		}
	}
	return s
}

// group writes a number with commas.
func group[N int | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func rate(perSecond float64) string {
	switch {
	case math.IsNaN(perSecond):
		return "?"
	case perSecond >= 100:
		return group(int64(math.Round(perSecond)))
	}
	return strconv.FormatFloat(perSecond, 'f', 1, 64)
}

// ago is the time since at, "" for never.
func ago(now float64, at *float64) string {
	if at == nil || *at == 0 {
		return ""
	}
	return short(now - *at)
}

// short writes seconds in at most six characters.
func short(seconds float64) string {
	s := math.Max(0, seconds)
	switch d := time.Duration(math.Min(s, 1e9)) * time.Second; {
	case s < 10:
		return strconv.FormatFloat(s, 'f', 1, 64) + "s"
	case s < 60:
		return fmt.Sprintf("%ds", int(s))
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(s)%60)
	case s < 48*3600:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}
