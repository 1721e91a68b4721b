// Package vm boots Linux kernels other than the host's under QEMU and runs a
// program in each of them, so that what depends on the kernel's version, on
// cgroup v2 or on a NUMA topology is tested for real on any machine.
//
// Job: fetch Debian's kernels and QEMU through apt into a private cache; make
// a guest's initramfs and its ext4 root disk from host files; boot it; hand
// back the program's output, exit status and the files it left in /out.
//
// Non-job: it makes no statement about what runs in the guest, and it times
// nothing: TCG emulates every instruction, ten to fifty times slower than
// hardware.
//
// Invariants: nothing on the host changes outside the cache and one temporary
// directory per boot: apt works in a private root, nothing is installed,
// mounted or attached to a loop device. QEMU ends before Run returns. A guest
// that does not boot is an error, never a skip and never an exit status.
//
// Needs: Debian on amd64, go, apt, dpkg-deb, xz, mke2fs and debugfs
// (e2fsprogs), a static /bin/busybox. Neither root nor KVM. Kernel of the
// guest: 5.6 or newer, with virtio, ext4 and devtmpfs.
package vm
