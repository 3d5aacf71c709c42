package httpapi

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/aglq/aglq/queue"
)

// describe makes the OpenAPI description of a route table.
func describe(table []route) []byte {
	paths := map[string]map[string]any{}
	for _, r := range table {
		if paths[r.path] == nil {
			paths[r.path] = map[string]any{}
		}
		paths[r.path][strings.ToLower(r.method)] = operation(r)
	}
	out, err := json.Marshal(map[string]any{
		"openapi":    "3.1.0",
		"info":       map[string]any{"title": "aglq", "version": "1"},
		"paths":      paths,
		"components": map[string]any{"schemas": schemas()},
	})
	if err != nil {
		panic("httpapi: the route table cannot be described: " + err.Error())
	}
	return out
}

func operation(r route) map[string]any {
	op := map[string]any{"summary": r.summary}
	var parameters []map[string]any
	for segment := range strings.SplitSeq(r.path, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			parameters = append(parameters, map[string]any{
				"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": text,
			})
		}
	}
	if r.list {
		for _, p := range listParameters {
			parameters = append(parameters, map[string]any{"name": p.name, "in": "query", "schema": p.schema})
		}
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	if r.body != "" {
		op["requestBody"] = map[string]any{"content": content(r.body)}
	}
	answer := map[string]any{"description": r.summary}
	if r.answer != "" {
		answer["content"] = content(r.answer)
	}
	op["responses"] = map[string]any{strconv.Itoa(r.status): answer}
	return op
}

// content is what a body or an answer holds: a schema, "[]" and a schema for an
// array, "page " and a schema for a page of a list.
func content(name string) map[string]any {
	schema := map[string]any{}
	kind := "application/json"
	switch {
	case strings.HasPrefix(name, "[]"):
		schema = array(ref(name[2:]))
	case strings.HasPrefix(name, "page "):
		schema = object("items", array(ref(name[5:])), "limit", integer, "offset", integer, "total", integer)
	case strings.HasPrefix(name, "ExportTrace"):
		kind = "application/x-protobuf"
	case name == "archive":
		kind = archiveType[0]
	case name != "OpenAPI":
		schema = ref(name)
	}
	return map[string]any{kind: map[string]any{"schema": schema}}
}

type schema = map[string]any

var (
	text    = schema{"type": "string"}
	integer = schema{"type": "integer"}
	boolean = schema{"type": "boolean"}
	number  = schema{"type": "number"}
	free    = schema{}
	anyDict = schema{"type": "object"}

	listParameters = []struct {
		name   string
		schema schema
	}{
		{"limit", integer}, {"offset", integer}, {"sort_by", text}, {"sort_order", words(orders)},
	}
)

func ref(name string) schema        { return schema{"$ref": "#/components/schemas/" + name} }
func array(item schema) schema      { return schema{"type": "array", "items": item} }
func orNull(of schema) schema       { return schema{"anyOf": []schema{of, {"type": "null"}}} }
func words[T ~string](w []T) schema { return schema{"type": "string", "enum": w} }

// object is the schema of an object from names and schemas in turn.
func object(members ...any) schema {
	properties := schema{}
	for pair := range slices.Chunk(members, 2) {
		properties[pair[0].(string)] = pair[1]
	}
	return schema{"type": "object", "properties": properties}
}

// with adds members to an object's schema.
func with(base schema, members ...any) schema {
	more := object(members...)
	for name, s := range base["properties"].(schema) {
		more["properties"].(schema)[name] = s
	}
	return more
}

func schemas() schema {
	paging := object("limit", integer, "offset", integer, "sort_by", orNull(text), "sort_order", words(orders))
	logic := words([]string{"and", "or"})
	request := object("input", free, "mode", orNull(words(queue.Modes)), "resources_id", orNull(text),
		"config", orNull(ref("RolloutConfig")), "metadata", orNull(anyDict))
	rollout := object("rollout_id", text, "input", free, "start_time", number, "end_time", orNull(number),
		"mode", orNull(words(queue.Modes)), "resources_id", orNull(text), "status", words(queue.RolloutStatuses),
		"config", ref("RolloutConfig"), "metadata", orNull(anyDict))
	context := object("trace_id", text, "span_id", text, "is_remote", boolean, "trace_state", anyDict)
	return schema{
		"Status": object("status", text),
		"Statistics": object("name", text, "total_rollouts", integer, "total_attempts", integer, "total_spans", integer,
			"total_resources", integer, "total_workers", integer, "uptime", number, "total_span_bytes", integer,
			"eviction_threshold_bytes", integer, "safe_threshold_bytes", integer, "memory_capacity_bytes", integer,
			"rollouts_by_status", anyDict, "evicted_spans", integer, "worker_ttl_seconds", number),
		"RolloutConfig": object("timeout_seconds", orNull(number), "unresponsive_seconds", orNull(number),
			"max_attempts", schema{"type": "integer", "minimum": 1}, "retry_condition", array(words(queue.AttemptStatuses))),
		"Rollout":          rollout,
		"AttemptedRollout": with(rollout, "attempt", ref("Attempt")),
		"Attempt": object("rollout_id", text, "attempt_id", text, "sequence_id", integer, "start_time", number,
			"end_time", orNull(number), "status", words(queue.AttemptStatuses), "worker_id", orNull(text),
			"last_heartbeat_time", orNull(number), "metadata", orNull(anyDict)),
		"Explanation":  explanation(),
		"ImportReport": importReport(),
		"Worker": object("worker_id", text, "status", words(queue.WorkerStatuses), "heartbeat_stats", orNull(anyDict),
			"last_heartbeat_time", orNull(number), "last_dequeue_time", orNull(number), "last_busy_time", orNull(number),
			"last_idle_time", orNull(number), "current_rollout_id", orNull(text), "current_attempt_id", orNull(text)),
		"NamedResources": anyDict,
		"ResourcesUpdate": object("resources_id", text, "create_time", number, "update_time", number, "version", integer,
			"resources", ref("NamedResources")),
		"Span": object("rollout_id", text, "attempt_id", text, "sequence_id", integer, "trace_id", text, "span_id", text,
			"parent_id", orNull(text), "name", text,
			"status", object("status_code", words(statusCodes), "description", orNull(text)),
			"attributes", anyDict, "events", array(anyDict), "links", array(anyDict), "start_time", orNull(number),
			"end_time", orNull(number), "context", orNull(context), "parent", orNull(context),
			"resource", object("attributes", anyDict, "schema_url", text)),
		"Enqueue":       object("rollouts", array(request)),
		"StartRollout":  with(request, "worker_id", orNull(text)),
		"Dequeue":       object("limit", integer, "worker_id", orNull(text), "wait_seconds", orNull(number)),
		"StartAttempt":  object("worker_id", orNull(text)),
		"RolloutUpdate": with(request, "status", words(queue.RolloutStatuses), "fence", boolean),
		"AttemptUpdate": object("status", words(queue.AttemptStatuses), "worker_id", text, "last_heartbeat_time", number,
			"metadata", anyDict),
		"AttemptRef": object("rollout_id", text, "attempt_id", text),
		"SequenceID": object("sequence_id", integer),
		"Heartbeat":  object("heartbeat_stats", anyDict, "attempts", array(ref("AttemptRef"))),
		"Wait":       object("rollout_ids", array(text), "timeout", orNull(number), "wait_seconds", orNull(number)),
		"Search":     paging,
		"RolloutSearch": with(paging, "status_in", array(words(queue.RolloutStatuses)), "rollout_id_in", array(text),
			"rollout_id_contains", text, "mode_in", array(words(queue.Modes)), "filter_logic", logic),
		"WorkerSearch": with(paging, "status_in", array(words(queue.WorkerStatuses)), "worker_id_contains", text,
			"filter_logic", logic),
		"SpanSearch": with(paging, "rollout_id", text, "attempt_id", orNull(text), "trace_id", text, "trace_id_contains", text,
			"span_id", text, "span_id_contains", text, "parent_id", text, "parent_id_contains", text, "name", text,
			"name_contains", text, "filter_logic", logic),
	}
}
