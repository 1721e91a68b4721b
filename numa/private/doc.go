// Package private opens directories that nobody but the caller can use, so that
// what is in them can be taken for his own.
//
// Not its job: to make one, or to look at what is in it. Whoever reaches the
// files through the descriptor that was checked, and not by path, is sure that
// they are of that directory.
//
// The kernel: anything that Go runs on.
package private
