// Package guest is what the host and the guest's init agree on: the files, the
// devices and the frames through which they speak.
package guest
