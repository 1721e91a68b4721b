// Package machines holds the sysfs of machines of many shapes, for tests: what
// package numa reads of them, as text.
//
// A file per machine lists the files below /sys, one per line: a path, a
// space, the content. The kernel's final line break is added. In a content,
// \n is a further line break, \\ a backslash and \{ a brace. An empty line, and
// one that begins with #, says nothing to the parser.
//
// Braces in a path stand for several files, and {} in the content for what
// the first of them stands for; {+48} and {-48} add and subtract:
//
//	devices/system/cpu/cpu{0-47}/topology/{core_cpus,thread_siblings}_list {},{+48}
//
// Not its job: to be linked into the product. It needs the testing package.
//
// What holds of every file: its comment says whether the machine was recorded
// or written from descriptions; no path appears twice.
package machines
