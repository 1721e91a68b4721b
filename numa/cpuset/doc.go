// Package cpuset holds sets of CPU or memory node numbers and reads and writes
// them in the kernel's list format.
//
// The format is that of cpuset(7), "List format", as parsed by the kernel's
// bitmap_parselist: "0-3,8", with groups such as "0-31:2/4" (the first two of
// every four). The words "all" and "N" of kernel 5.12 and later are refused:
// they depend on the number of CPUs of the machine, which a set does not know.
//
// A Set never changes once made, so it may be copied, shared between
// goroutines and kept without care. The package reads no files and knows
// nothing of the machine: whether a CPU exists or is online is its user's
// business. It imports nothing else of this module.
package cpuset
