package rig

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Busybox is where the host keeps the static busybox that images carry.
const Busybox = "/bin/busybox"

// File is one entry of a layer. A name ending in "/" is a directory; one
// whose last element starts with ".wh." is a whiteout (image-spec, layer.md).
type File struct {
	Name     string // relative to the root
	UID, GID int
	Mode     int64  // permission bits
	Data     []byte // content of a regular file
	Link     string // target: makes the entry a symbolic link
}

// Layer is one changeset of an image, in order.
type Layer []File

// epoch is every entry's time: images are the same bytes at every build.
var epoch = time.Unix(1_700_000_000, 0)

// tarball serialises the layer, uncompressed.
func (l Layer) tarball() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range l {
		h := &tar.Header{Name: f.Name, Uid: f.UID, Gid: f.GID, Mode: f.Mode, ModTime: epoch, Size: int64(len(f.Data)), Typeflag: tar.TypeReg}
		switch {
		case f.Link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
		case f.Name[len(f.Name)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("layer entry %q: %w", f.Name, err)
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, fmt.Errorf("layer entry %q: %w", f.Name, err)
		}
	}
	err := w.Close()
	return buf.Bytes(), err
}

// WriteImage writes an OCI image layout as a tar archive that `ctr images
// import` and the client's Import read.
func WriteImage(w io.Writer, name string, config ocispec.ImageConfig, layers []Layer) error {
	out := tar.NewWriter(w)
	put := func(path string, data []byte) error {
		h := &tar.Header{Name: path, Mode: 0o644, Size: int64(len(data)), ModTime: epoch, Typeflag: tar.TypeReg}
		if err := out.WriteHeader(h); err != nil {
			return err
		}
		_, err := out.Write(data)
		return err
	}
	blob := func(mediaType string, data []byte) (ocispec.Descriptor, error) {
		d := digest.FromBytes(data)
		err := put("blobs/sha256/"+d.Encoded(), data)
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}, err
	}

	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	image := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   config, RootFS: ocispec.RootFS{Type: "layers"}, Created: &epoch,
	}
	for i, l := range layers {
		data, err := l.tarball()
		if err != nil {
			return fmt.Errorf("layer %d of %s: %w", i, name, err)
		}
		desc, err := blob(ocispec.MediaTypeImageLayer, data)
		if err != nil {
			return fmt.Errorf("layer %d of %s: %w", i, name, err)
		}
		manifest.Layers = append(manifest.Layers, desc)
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, desc.Digest)
	}
	var err error
	if manifest.Config, err = jsonBlob(blob, ocispec.MediaTypeImageConfig, image); err != nil {
		return err
	}
	top, err := jsonBlob(blob, ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return err
	}
	top.Annotations = map[string]string{"io.containerd.image.name": name}
	top.Platform = &image.Platform
	index, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{top}})
	if err != nil {
		return err
	}
	if err := put(ocispec.ImageIndexFile, index); err != nil {
		return err
	}
	if err := put(ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"`+ocispec.ImageLayoutVersion+`"}`)); err != nil {
		return err
	}
	return out.Close()
}

func jsonBlob(blob func(string, []byte) (ocispec.Descriptor, error), mediaType string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return blob(mediaType, data)
}

// BaseLayer has busybox with the applets shell scripts use, the payload as
// /payload, and the directories containers mount on.
func (m *Machine) BaseLayer() (Layer, error) {
	busybox, err := os.ReadFile(Busybox)
	if err != nil {
		return nil, fmt.Errorf("read static busybox (Debian package busybox-static): %w", err)
	}
	payload, err := os.ReadFile(m.Payload)
	if err != nil {
		return nil, err
	}
	l := Layer{
		{Name: "bin/", Mode: 0o755}, {Name: "etc/", Mode: 0o755}, {Name: "root/", Mode: 0o700},
		{Name: "dev/", Mode: 0o755}, {Name: "proc/", Mode: 0o755}, {Name: "sys/", Mode: 0o755}, {Name: "run/", Mode: 0o755},
		{Name: "tmp/", Mode: 0o1777}, {Name: "data/", Mode: 0o755},
		{Name: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")},
		{Name: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nuser:x:1000:\n")},
		{Name: "bin/busybox", Mode: 0o755, Data: busybox},
		{Name: "payload", Mode: 0o755, Data: payload},
	}
	for _, applet := range []string{"sh", "cat", "chown", "dd", "echo", "false", "grep", "head", "hostname", "id", "kill", "ls", "mount", "ps", "seq", "sleep", "stat", "stty", "tail", "touch", "true", "wc"} {
		l = append(l, File{Name: "bin/" + applet, Link: "busybox"})
	}
	return l, nil
}

// ImportImage writes the image to the working directory, imports it and
// unpacks it into the snapshotter. cmd is what it runs, a shell if not given.
func (d *Daemon) ImportImage(ctx context.Context, name string, layers []Layer, cmd ...string) (containerd.Image, error) {
	archive, err := os.CreateTemp(d.cfg.Machine.Dir, filepath.Base(name)+"-*.tar")
	if err != nil {
		return nil, err
	}
	defer os.Remove(archive.Name())
	defer archive.Close()
	if len(cmd) == 0 {
		cmd = []string{"/bin/sh"}
	}
	config := ocispec.ImageConfig{Env: []string{"PATH=/bin"}, Cmd: cmd}
	if err := WriteImage(archive, name, config, layers); err != nil {
		return nil, err
	}
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if _, err := d.client.Import(ctx, archive); err != nil {
		return nil, fmt.Errorf("import %s: %w", name, err)
	}
	image, err := d.client.GetImage(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("find %s after import: %w", name, err)
	}
	if err := image.Unpack(ctx, Snapshotter); err != nil {
		return nil, fmt.Errorf("unpack %s: %w", name, err)
	}
	return image, nil
}

// ImportLayered is ImportImage of LayeredImage, with layers in all. The Tree is
// what a container of it must see below /data.
func (d *Daemon) ImportLayered(ctx context.Context, name string, layers int) (containerd.Image, Tree, error) {
	base, err := d.cfg.Machine.BaseLayer()
	if err != nil {
		return nil, nil, err
	}
	stack, tree := LayeredImage(base, layers-1)
	image, err := d.ImportImage(ctx, name, stack)
	return image, tree, err
}
