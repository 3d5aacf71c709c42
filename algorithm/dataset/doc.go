// Package dataset makes training data of what rollouts left behind.
//
// [Export] reads the attempts of a [Source], keeps those that a [Filter] selects,
// and makes rows of them in one of the [Formats]; [WriteFiles] puts the rows into
// files, whole or not at all, with a [Manifest] beside them. An attempt is in memory
// while it is looked at, and a few that were read ahead, however many there are.
//
// People and programs judge attempts: [Judge] files a judgment, [Measures.Run] asks
// a program. Both become annotations, which leave the rollout as it is and which
// filters read.
//
// [NewHistory] brings what agents' frameworks record of a conversation to the one
// form that chat templates and fine-tuning services take.
package dataset
