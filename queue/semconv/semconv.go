// Package semconv is the language of agents' spans: the names of spans and
// attributes, how nested values become flat attributes and come back, and how
// rewards, links and tags are written as attributes. Emitters write it, adapters
// and algorithms read it.
package semconv

import "github.com/aglq/aglq/queue/rawjson"

// Names of the spans that emitters make.
const (
	AnnotationSpan = "agentlightning.annotation"
	MessageSpan    = "agentlightning.message"
	ObjectSpan     = "agentlightning.object"
	ExceptionSpan  = "agentlightning.exception"
	OperationSpan  = "agentlightning.operation"
	// VirtualSpan is what adapters call a span that others name as their parent
	// and that is not there.
	VirtualSpan = "agentlightning.virtual"
)

// RewardOperation is the name of an operation that computes a reward.
const RewardOperation = "agentlightning.reward"

// WholeTag marks a span in the shape of a call to a language model by which an agent
// tells a whole conversation: the attempt's real calls are parts of it, or were made
// about it.
const WholeTag = "whole-conversation"

// Keys, and prefixes of keys, of attributes.
const (
	RewardPrefix    = "agentlightning.reward"
	LinkPrefix      = "agentlightning.link"
	TagPrefix       = "agentlightning.tag"
	MessageBody     = "agentlightning.message.body"
	ObjectType      = "agentlightning.object.type"
	ObjectLiteral   = "agentlightning.object.literal"
	ObjectJSON      = "agentlightning.object.json"
	OperationName   = "agentlightning.operation.name"
	OperationInput  = "agentlightning.operation.input"
	OperationOutput = "agentlightning.operation.output"

	ExceptionType       = "exception.type"
	ExceptionMessage    = "exception.message"
	ExceptionEscaped    = "exception.escaped"
	ExceptionStacktrace = "exception.stacktrace"
)

// PrimaryReward names the dimension of a reward that has only one.
const PrimaryReward = "primary"

// What a span of a call to a language model is called, and what its attributes
// begin with.
const (
	ChatSpan         = "openai.chat.completion"
	GenAI            = "gen_ai." // what the next ones have in common
	GenAIPrompt      = "gen_ai.prompt"
	GenAICompletion  = "gen_ai.completion"
	GenAIRequest     = "gen_ai.request"
	GenAIResponse    = "gen_ai.response"
	GenAIResponseID  = "gen_ai.response.id"
	PromptTokenIDs   = "prompt_token_ids"
	ResponseTokenIDs = "response_token_ids"
	LogprobsContent  = "logprobs.content"
)

// StatusOK is the status of a span that went well.
var StatusOK = rawjson.Value(`{"status_code":"OK","description":null}`)
