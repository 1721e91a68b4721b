// Package rootfs assembles a container's root filesystem through mount file
// descriptors.
//
// # Job
//
// [Assemble] turns the mounts that containerd names in a create request into
// one detached mount tree: overlay, bind and any other file system type, with
// or without an ID mapping. The tree is in no mount table. It becomes visible
// in one of two ways: [Tree.Attach] attaches it in the caller's mount
// namespace, [Tree.Handover] gives it to a container's init, which attaches it
// in the container's own mount namespace by [AttachInherited]. [Detach] takes
// away what Attach attached.
//
// # Not its job
//
// Creating, owning or removing directories; mounts inside the container that
// the OCI spec lists; programs that mount by path (FUSE helpers): those are
// refused with [ErrNeedsPath]. dm-verity is refused with [ErrVerity].
//
// # How an overlay is made
//
// The directory that all lower directories share is cloned once, detached; the
// clone is read-only, nosuid, nodev, follows no symbolic links, and has the ID
// mapping if there is one. Layers are given to overlayfs through the clone, by
// descriptor, or from 64 of them on by their names below it (fewer, without a
// mapping, are opened from the directory itself). A layer that is a mount of
// its own gets a clone of its own; it is never seen as the empty directory
// underneath. The upper and work directories are never ID-mapped: overlayfs
// would come up read-only, and the snapshotter has already given them to the
// mapped root.
//
// # Transforms
//
// What containerd's mount manager does to mounts (format/, mkdir/, mkfs/ in
// front of a type) is done here where containerd leaves it to the runtime, see
// [Claims]. The mounts that templates refer to are made detached too, and
// stand for themselves: a layer is given to overlayfs by the descriptor of its
// mount. Before Linux 6.15 each of them is attached in the private namespace.
// Directories and images are made below an earlier mount or below the
// directory of a plugin of containerd, and are not taken back.
//
// # Tiers
//
// Kernels before Linux 6.15 want layers to be attached somewhere. There the
// clone is attached in a mount namespace that nobody else sees ([Workshop]),
// the overlay is made in it, and its descriptor is brought out. Only where
// that is impossible as well is an overlay mounted on the host. Each [Tier]
// gives the same container. The kernel is not asked for its version: the best
// tier is tried, and if it fails as on a kernel without it, a probe tells
// whether that is the reason.
//
// # Invariants
//
//   - Unless [Tree.Host] says otherwise, Assemble changes no mount table that
//     anybody sees; killed at any instant, it leaves nothing behind.
//   - The number of operations on mount tables does not depend on the number
//     of layers, but for mounts of earlier mounts before Linux 6.15.
//   - A clone of layers is attached nowhere that a container could reach, and
//     inherited by nobody: every descriptor is close-on-exec. It ends with
//     Close of the tree at the latest, or with the process.
//   - Bad input is refused before the first system call.
//   - No file is removed, whatever fails.
//
// # Trust
//
// Paths come from containerd, which is root. The shared directory itself may
// be reached through symbolic links (an operator's /var/lib/containerd often
// is one); what lies below it may not, since a layer's content is not ours.
//
// # Kernel
//
// Linux 6.15: detached mounts as overlay layers, O_PATH descriptors in
// FSCONFIG_SET_FD, move_mount into a detached tree. The other tiers need less,
// down to 5.14, or 5.19 with an ID mapping. Where nothing works the error
// matches [ErrUnsupported]. What can be ID-mapped is bounded by mount_setattr
// (5.12) and idmapped ext4 and xfs (5.12), btrfs (5.15), erofs (5.19), tmpfs
// (6.3).
package rootfs
