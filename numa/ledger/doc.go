// Package ledger is the memory that all shims of a host share: which
// container claims which CPUs and nodes. There is no daemon; each change is
// made by the process that needs it, under a lock.
//
// The ledger is a directory that only root can use, /run/containerd-numa:
//
//	state      all claims, one line of text each; replaced, never edited
//	roots      where bundles have come from
//	state.bad  the last state that was of no use
//	topology   not the ledger's: what package numa remembers of the machine
//
// The lock is flock(2) on the directory. State is a cache: what is true of a
// container is in its bundle ([Record]), and who claims for whom is alive is in
// /proc. A state that is damaged, or of another boot, is put aside and made
// anew of what the bundles say. One of a newer version is left alone.
//
// The order for a container is Reserve, create it, Confirm with its init, and
// in the end Release; in between its bundle gets its Record. Whoever dies on
// the way leaves an entry that counts no longer and that the next one in need
// of room removes.
//
// Not its job: to decide where a container goes ([Decide] does), to read the
// machine (package numa), to write cpusets, or to write the bundle's file.
// Whether two claims may own one CPU is Decide's to know: it sees all others.
//
// What holds:
//   - a reader sees the state before or after a change, whole, without a lock;
//   - the claim that Reserve returns is in the state, and was decided upon all
//     the others that were in it;
//   - nothing of an error or a death at any moment outlives the next change; a
//     release that failed is owed, and goes with that;
//   - the lock is held while memory is edited and one file is written, not
//     while a process is looked at, signalled, or waited for. The exception is
//     a rebuild, which reads all bundles;
//   - no descriptor is open between calls, nor in a child.
//
// The kernel: Linux 5.3, for pidfd_open(2), without which nobody is woken.
package ledger
