// Package repo has tests that hold the repository to its own rules: which
// package may import which, what is linked into the shim, that every package
// says what it is for, and that the documentation names what there is.
package repo
