package dataset

// Reason says why something is not in a dataset. The values are those of manifests.
type Reason string

// Why an attempt has no rows.
const (
	WrongStatus    Reason = "status" // of a rollout that was named
	WrongMode      Reason = "mode"
	WrongResources Reason = "resources_id"
	WrongTime      Reason = "time"
	WrongMetadata  Reason = "metadata"
	WrongTag       Reason = "tag"
	WrongJudgment  Reason = "judgment"
	WrongMeasure   Reason = "measure"
	WrongReward    Reason = "reward"
	NoReward       Reason = "no_reward"    // and one was asked for
	NotTop         Reason = "top_fraction" // others are better
	NotBest        Reason = "not_best"     // another attempt of the rollout is better
	WrongWhere     Reason = "where"
	WhereFailed    Reason = "where_error" // the condition could not be told
	NoAttempt      Reason = "no_attempt"
	NoSpans        Reason = "no_spans"
	Malformed      Reason = "malformed" // its spans say what cannot be
	NoRows         Reason = "no_rows"   // see why its rows were left out
	NothingSaid    Reason = "no_calls"  // no call of a model is recorded
)

// Why a conversation or a call is no row.
const (
	Continued Reason = "continued" // a later one begins with it
	Duplicate Reason = "duplicate_response"
	NoUser    Reason = "no_user_message"
	NoAnswer  Reason = "no_answer"
	NotText   Reason = "not_text" // images and the like, and the format is text
	BadRoles  Reason = "role_order"
	BadTools  Reason = "tool_calls" // without an answer, or with a name that OpenAI does not take
)
