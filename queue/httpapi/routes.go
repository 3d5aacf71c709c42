package httpapi

import (
	"context"
	"net/http"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
)

const api = "/v1/agl"

// table is the one list of routes. The dashboard, /v1/prometheus and what no
// route serves are not in it.
func (s *Server) table() []route {
	const get, post = http.MethodGet, http.MethodPost
	return []route{
		{method: get, path: health, summary: "Is the process alive?", answer: "Status", status: 200, serve: (*call).health},
		{method: get, path: api + "/ready", summary: "Can the backend be reached?", answer: "Status", status: 200, serve: (*call).ready},
		{method: get, path: api + "/statistics", summary: "Count what is stored", answer: "Statistics", status: 200, serve: (*call).statistics},

		{method: post, path: api + "/queues/rollouts/enqueue", summary: "Enqueue rollouts, all or none", body: "Enqueue", answer: "[]Rollout", status: 201, serve: (*call).enqueue},
		{method: post, path: api + "/queues/rollouts/dequeue", summary: "Claim rollouts", body: "Dequeue", answer: "[]AttemptedRollout", status: 200, serve: (*call).dequeue},

		{method: post, path: api + "/rollouts", summary: "Start a rollout past the queue", body: "StartRollout", answer: "AttemptedRollout", status: 201, serve: (*call).startRollout},
		{method: get, path: api + "/rollouts", summary: "List rollouts", answer: "page AttemptedRollout", status: 200, list: true, serve: (*call).listRollouts},
		{method: post, path: api + "/rollouts/search", summary: "List rollouts", body: "RolloutSearch", answer: "page AttemptedRollout", status: 200, serve: (*call).listRollouts},
		{method: get, path: api + "/rollouts/{rollout_id}", summary: "One rollout, or null", answer: "AttemptedRollout", status: 200, serve: (*call).rollout},
		{method: post, path: api + "/rollouts/{rollout_id}", summary: "Change a rollout", body: "RolloutUpdate", answer: "Rollout", status: 200, serve: (*call).updateRollout},

		{method: get, path: api + "/rollouts/{rollout_id}/explain", summary: "Why it stands where it does, and what happens next", answer: "Explanation", status: 200, serve: (*call).explain},
		{method: get, path: api + "/rollouts/{rollout_id}/attempts", summary: "List attempts", answer: "page Attempt", status: 200, list: true, serve: (*call).listAttempts},
		{method: post, path: api + "/rollouts/{rollout_id}/attempts", summary: "Start another attempt", body: "StartAttempt", answer: "AttemptedRollout", status: 201, serve: (*call).startAttempt},
		{method: post, path: api + "/rollouts/{rollout_id}/attempts/search", summary: "List attempts", body: "Search", answer: "page Attempt", status: 200, serve: (*call).listAttempts},
		{method: get, path: api + "/rollouts/{rollout_id}/attempts/latest", summary: "The latest attempt, or null", answer: "Attempt", status: 200, serve: (*call).latestAttempt},
		{method: post, path: api + "/rollouts/{rollout_id}/attempts/{attempt_id}", summary: "Change an attempt; latest names the latest", body: "AttemptUpdate", answer: "Attempt", status: 200, serve: (*call).updateAttempt},

		{method: get, path: api + "/workers", summary: "List workers", answer: "page Worker", status: 200, list: true, serve: (*call).listWorkers},
		{method: post, path: api + "/workers/search", summary: "List workers", body: "WorkerSearch", answer: "page Worker", status: 200, serve: (*call).listWorkers},
		{method: get, path: api + "/workers/{worker_id}", summary: "One worker, or null", answer: "Worker", status: 200, serve: (*call).worker},
		{method: post, path: api + "/workers/{worker_id}", summary: "Heartbeat of a worker and of the attempts it holds", body: "Heartbeat", answer: "Worker", status: 200, serve: (*call).heartbeat},

		{method: get, path: api + "/resources", summary: "List sets of resources", answer: "page ResourcesUpdate", status: 200, list: true, serve: (*call).listResources},
		{method: post, path: api + "/resources", summary: "Add a set of resources", body: "NamedResources", answer: "ResourcesUpdate", status: 201, serve: (*call).addResources},
		{method: get, path: api + "/resources/latest", summary: "The latest set, or null", answer: "ResourcesUpdate", status: 200, serve: (*call).latestResources},
		{method: get, path: api + "/resources/{resources_id}", summary: "One set, or null", answer: "ResourcesUpdate", status: 200, serve: (*call).resources},
		{method: post, path: api + "/resources/{resources_id}", summary: "Replace or create a set", body: "NamedResources", answer: "ResourcesUpdate", status: 200, serve: (*call).updateResources},

		{method: post, path: api + "/spans", summary: "Store a span; null for one already there", body: "Span", answer: "Span", status: 201, serve: (*call).addSpan},
		{method: get, path: api + "/spans", summary: "List the spans of a rollout", answer: "page Span", status: 200, list: true, serve: (*call).listSpans},
		{method: post, path: api + "/spans/search", summary: "List the spans of a rollout", body: "SpanSearch", answer: "page Span", status: 200, serve: (*call).listSpans},
		{method: post, path: api + "/spans/next", summary: "Issue the next number of a rollout's spans", body: "AttemptRef", answer: "SequenceID", status: 200, serve: (*call).nextSequence},

		{method: post, path: api + "/waits/rollouts", summary: "Wait until rollouts have finished", body: "Wait", answer: "[]Rollout", status: 200, serve: (*call).wait},

		{method: get, path: api + "/archive", summary: "All that is stored, as an archive", answer: "archive", status: 200, serve: (*call).exportArchive},
		{method: post, path: api + "/archive", summary: "Store what is in an archive; merge=true takes in what is missing", body: "archive", answer: "ImportReport", status: 200, serve: (*call).importArchive},

		{method: post, path: "/v1/traces", summary: "OTLP traces, protobuf or JSON", body: "ExportTraceServiceRequest", answer: "ExportTraceServiceResponse", status: 200, serve: (*call).traces},
		{method: post, path: "/v1/metrics", summary: "Not stored", answer: "", status: 501, serve: (*call).unsupported},
		{method: post, path: "/v1/logs", summary: "Not stored", answer: "", status: 501, serve: (*call).unsupported},
		{method: post, path: "/v1/development/profiles", summary: "Not stored", answer: "", status: 501, serve: (*call).unsupported},

		{method: get, path: "/openapi.json", summary: "This description", answer: "OpenAPI", status: 200, serve: (*call).describe},
	}
}

var statusOK = []byte(`{"status":"ok"}`)

func (c *call) health() error { return c.send(http.StatusOK, jsonType, statusOK) }

func (c *call) ready() error {
	ctx, cancel := context.WithTimeout(c.ctx(), readyTimeout)
	defer cancel()
	if err := c.server.store.Ready(ctx); err != nil {
		return queue.Wrap(queue.Unavailable, err, "the backend cannot be reached")
	}
	return c.send(http.StatusOK, jsonType, statusOK)
}

func (c *call) describe() error { return c.send(http.StatusOK, jsonType, c.server.openAPI) }

func (c *call) statistics() error {
	st, err := c.server.store.Statistics(c.ctx())
	if err != nil {
		return err
	}
	return c.reply(http.StatusOK, func(dst []byte) []byte {
		count := func(name string, n int64) {
			dst = append(dst, `,"`+name+`":`...)
			dst = rawjson.AppendInt(dst, n)
		}
		dst = append(dst, `{"name":`...)
		dst = rawjson.AppendString(dst, st.Name)
		count("total_rollouts", st.Rollouts)
		count("total_attempts", st.Attempts)
		count("total_spans", st.Spans)
		count("total_resources", st.Resources)
		count("total_workers", st.Workers)
		dst = append(dst, `,"uptime":`...)
		dst = rawjson.AppendFloat(dst, st.Uptime.Seconds())
		if m := st.Memory; m != nil {
			count("total_span_bytes", m.SpanBytes)
			count("eviction_threshold_bytes", m.EvictionThreshold)
			count("safe_threshold_bytes", m.SafeThreshold)
			count("memory_capacity_bytes", m.Capacity)
		}
		dst = append(dst, `,"rollouts_by_status":{`...)
		for i, status := range queue.RolloutStatuses {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, `"`+string(status)+`":`...)
			dst = rawjson.AppendInt(dst, st.ByStatus[status])
		}
		dst = append(dst, '}')
		if m := st.Memory; m != nil {
			count("evicted_spans", m.EvictedSpans)
		}
		if st.WorkerTTL > 0 {
			dst = append(dst, `,"worker_ttl_seconds":`...)
			dst = rawjson.AppendFloat(dst, st.WorkerTTL.Seconds())
		}
		return append(dst, '}')
	})
}
