"""Writes a snapshot into an empty directory: content first, then owner, attributes, mode, times."""

import os
import resource
import stat

from .errors import Refused
from .tree import BLOCK, CHARACTER, DEPTH_MAX, DIRECTORY, FIFO, FILE, HOLE, SOCKET, SYMLINK, check_entry

_NODES = {FIFO: stat.S_IFIFO, SOCKET: stat.S_IFSOCK, CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK}


class Restore:
    """One run. Paths are never used: every step is relative to an open directory, and follows no links."""

    def __init__(self, tree):
        self.tree = tree
        self.root = os.geteuid() == 0
        self.links = {}
        self.notes = []
        self.files = self.bytes = 0
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def run(self, entry, target):
        """Restores a root entry: a directory's content goes into `target`, anything else gets its name there."""
        os.makedirs(target, exist_ok=True)
        self.target = os.fsencode(target)
        top = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        if os.listdir(top):
            raise Refused("the target is not empty")
        check_entry(entry, "root")
        if entry[1] != DIRECTORY:
            raise Refused("the root is no directory")
        self._directory(entry, top)

    def _directory(self, entry, top):
        """Depth first, without recursion: directories may be 4,096 deep."""
        stack = [(entry, b"/", top, self.tree.children(entry, b"/"))]
        while stack:
            entry, path, fd, children = stack[-1]
            child = next(children, None)
            if child is None:
                self._metadata_of_directory(entry, fd, path)
                os.close(fd)
                stack.pop()
                continue
            below = path + (b"" if path == b"/" else b"/") + child[0]
            if child[1] != DIRECTORY:
                self._leaf(child, fd, below)
                continue
            if len(stack) > DEPTH_MAX:
                raise Refused(f"{below!r}: too deep")
            os.mkdir(child[0], 0o700, dir_fd=fd)
            inside = os.open(child[0], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            stack.append((child, below, inside, self.tree.children(child, below)))

    def _leaf(self, entry, fd, path):
        name, kind = entry[0], entry[1]
        if self._linked(entry, fd, path):
            return
        if kind == FILE:
            self._file(entry, fd, path)
        elif kind == SYMLINK:
            os.symlink(entry[16], name, dir_fd=fd)
            self._metadata_by_name(entry, fd, path)
        else:
            device = os.makedev(entry.get(17, 0), entry.get(18, 0))
            os.mknod(name, _NODES[kind] | 0o600, device, dir_fd=fd)
            self._metadata_by_name(entry, fd, path)

    def _linked(self, entry, fd, path):
        """Makes a further name of an inode that was restored under another name."""
        if 10 not in entry:
            return False
        inode = (entry[20], entry[9])
        if inode not in self.links:
            self.links[inode] = path[1:].split(b"/")
            return False
        first = self.links[inode]
        folder = self._folder(first)
        try:
            os.link(first[-1], entry[0], src_dir_fd=folder, dst_dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(folder)
        return True

    def _folder(self, path):
        """Opens the directory of what was restored there, step by step: the whole path may be too long to open."""
        fd = os.open(self.target, os.O_PATH | os.O_DIRECTORY)
        for part in path[:-1]:
            inside = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = inside
        return fd

    def _file(self, entry, fd, path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        file = os.open(entry[0], flags, 0o600, dir_fd=fd)
        try:
            self._content(entry, file, path)
            self._metadata(entry, file, path)
            os.utime(file, ns=times(entry))
        finally:
            os.close(file)
        self.files += 1
        self.bytes += entry.get(11, 0)

    def _content(self, entry, file, path):
        """Chunk by chunk; holes are skipped over."""
        if 12 in entry:
            write_all(file, entry[12])
        at = 0
        for id, length in self.tree.content(entry, path):
            if id != HOLE:
                os.lseek(file, at, os.SEEK_SET)
                write_all(file, self.tree.data(id, length, path))
            at += length
        if entry.get(11, 0) and 12 not in entry:
            os.ftruncate(file, entry[11])

    def _metadata(self, entry, fd, path):
        """Owner first: it takes set-id bits and capabilities away. Then attributes, then the mode."""
        if self.root:
            os.fchown(fd, entry[3], entry[4])
        for name, value in self.tree.xattrs(entry, path):
            self._xattr(fd, name, value, path, True)
        os.fchmod(fd, entry[2])

    def _metadata_of_directory(self, entry, fd, path):
        self._metadata(entry, fd, path)
        os.utime(fd, ns=times(entry))

    def _metadata_by_name(self, entry, fd, path):
        """Of what cannot be opened: links, pipes, sockets, devices."""
        name = entry[0]
        if self.root:
            os.chown(name, entry[3], entry[4], dir_fd=fd, follow_symlinks=False)
        place = os.path.join(f"/proc/self/fd/{fd}".encode(), name)
        for attribute, value in self.tree.xattrs(entry, path):
            self._xattr(place, attribute, value, path, False)
        if entry[1] != SYMLINK:
            os.chmod(place, entry[2])
        os.utime(name, ns=times(entry), dir_fd=fd, follow_symlinks=False)

    def _xattr(self, where, name, value, path, follow):
        try:
            os.setxattr(where, name, value, follow_symlinks=follow)
        except OSError as error:
            self.notes.append(f"{path!r}: attribute {name!r}: {error.strerror}")


def times(entry):
    """Time of access (not recorded: the same) and of change, in nanoseconds."""
    return (entry[5] * 1_000_000_000 + entry[6],) * 2


def write_all(fd, data):
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
