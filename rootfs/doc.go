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
// refused with [ErrNeedsPath]. Transforms of containerd's mount manager
// (format/, mkdir/, X-containerd options) must have been applied before.
//
// # How an overlay is made
//
// Each lower directory is opened beneath the directory that all of them share
// and given to overlayfs as a descriptor, so that neither the length of its
// name nor an escape character matters and no symbolic link below the shared
// directory can redirect it. With an ID mapping the shared directory is cloned
// once, detached and not recursive; the clone is ID-mapped, read-only, nosuid
// and nodev, and the layers are opened through it. A layer that lies on another
// mount than the shared directory (it would be seen as the empty directory
// underneath) gets a clone of its own. Clones are closed once the overlay
// exists: overlayfs keeps private ones. The upper and work directories are
// never ID-mapped: overlayfs would come up read-only, and the snapshotter has
// already given them to the mapped root.
//
// # Invariants
//
//   - Assemble changes no mount table; killed at any instant, it leaves
//     nothing behind.
//   - A clone of layers is attached nowhere and inherited by nobody: every
//     descriptor is close-on-exec.
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
// FSCONFIG_SET_FD, move_mount into a detached tree. Where the kernel refuses
// for lack of these the error matches [ErrUnsupported], and the caller may
// mount another way. mount_setattr (5.12) and idmapped tmpfs (6.3), ext4 and
// xfs (5.12), btrfs (5.15), erofs (5.19) bound what can be ID-mapped.
package rootfs
