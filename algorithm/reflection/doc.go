// Package reflection learns heuristics from finished rollouts. A critic, a language
// model or a program, judges each of them; its verdict is filed with the attempt, its
// suggestions become proposals for a set of heuristics that agents are given, and the
// rollouts that went wrong are marked as hard cases and, if wanted, run again.
//
// All that is written for a rollout has ids that follow from its own, and the verdict
// is written last: a reflection that was killed goes on under its name and does
// nothing twice.
//
// Heuristics are a prompt template named "heuristics" among the resources of an id.
// Beside it, "reflection" says, as JSON, where each comes from ([Record]). A proposal
// is a set of resources of its own; [Promote] adds it to the heuristics. Each version
// of these is kept under an id of its own too, and Promote of that brings it back.
package reflection
