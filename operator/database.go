package operator

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/aglq/aglq/collections/mongo"
)

// ExamineDatabase judges the state of a MongoDB deployment.
func ExamineDatabase(s mongo.Server) []Finding {
	out := []Finding{version(s), replicaSet(s)}
	out = append(out, members(s)...)
	out = append(out, skewed("the database's clock", s.Ahead, s.Within))
	if s.Available > 0 {
		f := Finding{Severity: OK, Text: fmt.Sprintf("%d connections are open, %d more may be", s.Connections, s.Available)}
		if s.Available < 100 {
			f.Severity, f.Remedy = Warning, "raise net.maxIncomingConnections and the file limit of mongod, or close what else is connected"
		}
		out = append(out, f)
	}
	if s.Profiling > 1 {
		out = append(out, Finding{Severity: Warning, Text: "profiling level 2 is on: each command is logged, which slows all of them",
			Remedy: "run db.setProfilingLevel(0) in the database, with mongosh"})
	}
	for _, warning := range s.Warnings {
		if text := strings.ToLower(warning); strings.Contains(text, "rlimit") || strings.Contains(text, "file descriptors") {
			out = append(out, Finding{Severity: Warning, Text: "mongod says: " + printable(warning),
				Remedy: RaiseFileLimit})
		}
	}
	for i := range out {
		out[i].Check = "database"
	}
	return out
}

// leastVersion is the first that has what the store needs.
const leastVersion = 5

func version(s mongo.Server) Finding {
	major, _, _ := strings.Cut(s.Version, ".")
	switch n, err := strconv.Atoi(major); {
	case err != nil:
		return Finding{Severity: Skipped, Text: "the user may not see the server's version; it must be 5.0 or newer"}
	case n < leastVersion:
		return Finding{Severity: Problem, Text: "MongoDB " + s.Version + " is too old", Remedy: "upgrade to 5.0 or newer"}
	}
	return Finding{Severity: OK, Text: "MongoDB " + s.Version}
}

func replicaSet(s mongo.Server) Finding {
	switch {
	case s.Sharded:
		return Finding{Severity: OK, Text: "a sharded cluster"}
	case s.Set == "":
		return Finding{Severity: Problem, Text: "the server is not a member of a replica set, and transactions need one",
			Remedy: "start mongod with --replSet rs0, then once: mongosh --eval 'rs.initiate()'"}
	case !s.Initiated:
		return Finding{Severity: Problem, Text: "the replica set has not been initiated", Remedy: "once: mongosh --eval 'rs.initiate()'"}
	case !s.Primary:
		return Finding{Severity: Problem, Text: "replica set " + s.Set + " has no primary, so nothing can be written",
			Remedy: "start the members that are down: a majority must be up; rs.status() in mongosh tells more"}
	}
	return Finding{Severity: OK, Text: "replica set " + s.Set + " has a primary"}
}

func members(s mongo.Server) []Finding {
	var out []Finding
	for _, m := range s.Members {
		if m.Health != 1 || (m.State != "PRIMARY" && m.State != "SECONDARY" && m.State != "ARBITER") {
			out = append(out, Finding{Severity: Warning, Text: fmt.Sprintf("member %s is %s", printable(m.Name), printable(m.State)),
				Remedy: "start it, or take it out of the set: each majority write waits for more of the others"})
		}
	}
	return out
}
