// Package mountoptions holds package rootfs' reading of mount options against
// containerd's (core/mount), which does with mount(2) what rootfs does with
// descriptors. It has tests only: both mount the same on this machine, and what
// the kernel then shows of it must be the same.
package mountoptions
