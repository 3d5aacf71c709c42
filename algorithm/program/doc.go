// Package program runs an algorithm that is a program in any language. The program
// reads finished rollouts from its standard input and writes tasks and resources to
// its standard output, both as JSON lines.
//
// Each line the program is sent is an object with one member, which says what it
// is: [Hello] first, then [Finished], [Group], and an [Answer] or [Fault] for each
// line it wrote. Each line it writes is a [Command].
//
// What the program enqueues carries the name of the run in its metadata. A program
// that is started again under the same name is told what is there, is sent all
// finished rollouts of the run again, and may send the commands of its first life
// again: a batch that it names is stored once. So an algorithm that draws nothing at
// random, or from a seed, resumes by starting over.
package program
