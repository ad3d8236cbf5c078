//! The tar stream of one host -> a tar stream for another one.
//!
//! The host that sends it chooses every byte, and the one that gets it unpacks it as the user of
//! its connection, often root. So nothing is handed on as it came: each entry is read, within
//! limits, and written anew. Files, directories and links are passed on, without their owner,
//! and with the mode that they had but for the bits that give others rights: set-user-id,
//! set-group-id, sticky, and writing by group and others.
//!
//! Formats that are read: v7, ustar and pax (POSIX.1-2024, `pax`), and GNU's long names and binary
//! numbers (GNU tar manual, "Basic Tar Format").

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;

use super::archive::{BLOCK, Entry, header, pad, write_end};

/// Bits of a mode that are passed on.
const MODE: u32 = 0o755;
/// Bytes of a file system that a transfer does not take.
const FREE_MIN: u64 = 256 << 20;
/// Most bytes of a name, and of what a pax header holds.
const NAME_MAX: u64 = 64 << 10;

/// What entries before the one that they describe say of it.
#[derive(Default)]
struct Said {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

/// What a host sends, kept here until all of it has come: in a file without a name, which leaves
/// [`FREE_MIN`] bytes of its file system to others.
pub struct Spool {
    file: File,
    /// Bytes that may come before the file system is looked at again.
    unlooked: u64,
}

impl Spool {
    /// Returns an empty one, in the directory for temporary files.
    pub fn new() -> io::Result<Self> {
        let file = tempfile::tempfile()?;
        Ok(Self { file, unlooked: 0 })
    }

    /// Writes to `out` what [`relay`] makes of it.
    pub fn relay(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(0))?;
        relay(&mut BufReader::with_capacity(1 << 16, &self.file), out)
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unlooked < bytes.len() as u64 {
            let disk = rustix::fs::fstatvfs(&self.file)?;
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            if free < FREE_MIN {
                let message = "it would fill the disk that temporary files lie on";
                return Err(io::Error::new(io::ErrorKind::StorageFull, message));
            }
            self.unlooked = FREE_MIN / 4 + bytes.len() as u64;
        }
        self.unlooked -= bytes.len() as u64;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Copies the archive in `from` to `out`.
///
/// # Errors
/// Those of reading and writing; [`io::ErrorKind::UnexpectedEof`]; [`io::ErrorKind::InvalidData`]
/// where `from` is no archive, or an entry is neither file, directory nor link, or has a name that
/// leads out of the directory it is unpacked in.
pub fn relay(from: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
    let mut said = Said::default();
    loop {
        let mut block = [0; BLOCK];
        from.read_exact(&mut block)?;
        if block == [0; BLOCK] {
            return write_end(out);
        }
        check_sum(&block)?;
        let size = number(&block[124..136])?;
        match block[156] {
            b'L' => said.name = Some(text(&take(from, size)?)),
            b'K' => said.link = Some(text(&take(from, size)?)),
            b'x' => said.read_pax(&take(from, size)?)?,
            // Global headers: comments, as of `git archive`.
            b'g' => drop(take(from, size)?),
            _ => relay_one(&block, std::mem::take(&mut said), from, out)?,
        }
    }
}

fn relay_one(
    block: &[u8; BLOCK],
    said: Said,
    from: &mut dyn Read,
    out: &mut dyn Write,
) -> io::Result<()> {
    let size = match said.size {
        Some(size) => size,
        None => number(&block[124..136])?,
    };
    let name = said.name.unwrap_or_else(|| name_of(block));
    let link = said.link.unwrap_or_else(|| text(&block[157..257]));
    let kind = match block[156] {
        0 | b'0' | b'7' if name.ends_with(b"/") => b'5',
        0 | b'0' | b'7' => b'0',
        kind @ (b'1' | b'2' | b'5') => kind,
        _ => return Err(refused(&name, "is neither file, directory nor link")),
    };
    if !is_inside(&name) || (kind == b'1' && !is_inside(&link)) {
        return Err(refused(&name, "points outside of its directory"));
    }
    if kind != b'0' && size != 0 {
        return Err(refused(&name, "is not a file, and has content"));
    }
    let entry = Entry {
        name: &name,
        kind,
        mode: number(&block[100..108])? as u32 & MODE,
        size,
        mtime: number(&block[136..148]).unwrap_or(0),
        link: &link,
    };
    header(&entry, out)?;
    if io::copy(&mut from.take(size), out)? != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    skip_padding(size, from)?;
    pad(size, out)
}

impl Said {
    /// Takes what a pax header says: records `LENGTH KEY=VALUE\n`.
    fn read_pax(&mut self, mut records: &[u8]) -> io::Result<()> {
        let senseless = || wrong("a header of the archive is invalid");
        while !records.is_empty() {
            let blank = records
                .iter()
                .position(|b| *b == b' ')
                .ok_or_else(senseless)?;
            let length = std::str::from_utf8(&records[..blank]).map_err(|_| senseless())?;
            let length: usize = length.parse().map_err(|_| senseless())?;
            let record = records.get(blank + 1..length).ok_or_else(senseless)?;
            let record = record.strip_suffix(b"\n").ok_or_else(senseless)?;
            let equals = record
                .iter()
                .position(|b| *b == b'=')
                .ok_or_else(senseless)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => {
                    let text = std::str::from_utf8(value).map_err(|_| senseless())?;
                    self.size = Some(text.parse().map_err(|_| senseless())?);
                }
                // Sparse files have other content than what follows.
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(wrong("the archive has sparse files"));
                }
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

/// Reads what an entry about other entries holds.
fn take(from: &mut dyn Read, size: u64) -> io::Result<Vec<u8>> {
    if size > NAME_MAX {
        return Err(wrong("a name in the archive is too long"));
    }
    let mut bytes = Vec::new();
    if from.take(size).read_to_end(&mut bytes)? as u64 != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    skip_padding(size, from)?;
    Ok(bytes)
}

fn skip_padding(size: u64, from: &mut dyn Read) -> io::Result<()> {
    let mut rest = [0; BLOCK];
    let over = (size % BLOCK as u64) as usize;
    match over {
        0 => Ok(()),
        over => from.read_exact(&mut rest[over..]),
    }
}

/// Returns the bytes before the first NUL.
fn text(bytes: &[u8]) -> Vec<u8> {
    let end = bytes.iter().position(|b| *b == 0);
    bytes[..end.unwrap_or(bytes.len())].to_vec()
}

fn name_of(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&block[..100]);
    let prefix = text(&block[345..500]);
    match &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        true => [&prefix[..], b"/", &name].concat(),
        false => name,
    }
}

/// Parses a number: octal digits, or binary where the first bit is set.
fn number(field: &[u8]) -> io::Result<u64> {
    let senseless = || wrong("a number in the archive is invalid");
    if field[0] == 0x80 {
        let add = |number: u64, byte: &u8| Some(number.checked_mul(256)? + u64::from(*byte));
        return field[1..].iter().try_fold(0, add).ok_or_else(senseless);
    }
    let digits = std::str::from_utf8(field).map_err(|_| senseless())?;
    match digits.trim_matches([' ', '\0']) {
        "" => Ok(0),
        digits => u64::from_str_radix(digits, 8).map_err(|_| senseless()),
    }
}

fn check_sum(block: &[u8; BLOCK]) -> io::Result<()> {
    let bytes = block.iter().enumerate();
    let sum: u64 = bytes
        .map(|(at, byte)| match at {
            148..156 => u64::from(b' '),
            _ => u64::from(*byte),
        })
        .sum();
    match number(&block[148..156]) {
        Ok(told) if told == sum => Ok(()),
        _ => Err(wrong("the data received is not an archive")),
    }
}

/// Returns whether a name stays in the directory that the archive is unpacked in.
fn is_inside(name: &[u8]) -> bool {
    !name.starts_with(b"/") && name.split(|b| *b == b'/').all(|part| part != b"..")
}

fn refused(name: &[u8], why: &str) -> io::Error {
    let shown = crate::core::fs::shown(OsStr::from_bytes(name));
    wrong(&format!("`{shown}` {why}"))
}

fn wrong(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    /// Runs a script in a directory of its own, and returns what it printed.
    fn sh(dir: &std::path::Path, script: &str) -> Vec<u8> {
        let mut command = Command::new("sh");
        command.args(["-euc", script]).current_dir(dir);
        let output = command.output().expect("starts");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    /// Returns an archive with one entry.
    fn archive(entry: &Entry<'_>, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        header(entry, &mut bytes).expect("writes");
        bytes.extend(content);
        pad(content.len() as u64, &mut bytes).expect("writes");
        write_end(&mut bytes).expect("writes");
        bytes
    }

    fn entry<'a>(name: &'a [u8], kind: u8, link: &'a [u8]) -> Entry<'a> {
        Entry {
            name,
            kind,
            mode: 0o6777,
            size: 0,
            mtime: 0,
            link,
        }
    }

    #[test]
    fn what_tar_packs_arrives_without_rights_for_others() {
        for format in ["gnu", "pax", "ustar", "v7"] {
            let dir = tempfile::tempdir().expect("a directory");
            let long = match format {
                "v7" | "ustar" => "l".repeat(90),
                _ => "l".repeat(200),
            };
            let script = format!(
                "umask 022; mkdir -p from/sub/empty to; cd from
                printf '%700s' x >big; ln big hard; ln -s ../elsewhere link; echo x >sub/{long}
                echo x >shell; chmod 6755 shell; echo x >open; chmod 666 open; chmod 1777 sub
                echo x >private; chmod 600 private; chmod 700 sub/empty
                tar --format={format} -cf - ."
            );
            let sent = sh(dir.path(), &script);
            let mut relayed = Vec::new();
            relay(&mut &sent[..], &mut relayed).expect(format);
            std::fs::write(dir.path().join("relayed"), relayed).expect("writes");
            sh(
                dir.path(),
                "tar -xpf relayed -C to; diff -r --no-dereference from to; cmp to/big to/hard",
            );
            for (name, mode) in [
                ("shell", 0o755),
                ("open", 0o644),
                ("private", 0o600),
                ("sub", 0o755),
                ("sub/empty", 0o700),
                ("big", 0o644),
                (".", 0o755),
            ] {
                let meta = std::fs::metadata(dir.path().join("to").join(name)).expect("is there");
                assert_eq!(meta.permissions().mode() & 0o7777, mode, "{format}: {name}");
            }
            let link = std::fs::read_link(dir.path().join("to/link")).expect("is a link");
            assert_eq!(link.to_str(), Some("../elsewhere"));
        }
    }

    #[test]
    fn what_is_no_file_directory_or_link_is_refused() {
        let long = entry(b"././@LongLink", b'L', b"");
        let too_long = Entry {
            size: NAME_MAX + 1,
            ..long
        };
        for (bytes, says) in [
            (archive(&entry(b"sda", b'4', b""), b""), "`sda` is neither"),
            (
                archive(&entry(b"pipe", b'6', b""), b""),
                "`pipe` is neither",
            ),
            (
                archive(&entry(b"sparse", b'S', b""), b""),
                "`sparse` is neither",
            ),
            (archive(&entry(b"../a", b'0', b""), b""), "points outside"),
            (archive(&entry(b"/etc/a", b'0', b""), b""), "points outside"),
            (
                archive(&entry(b"a", b'1', b"../../etc/shadow"), b""),
                "points outside",
            ),
            (archive(&too_long, b""), "too long"),
            (b"x".repeat(1024), "not an archive"),
            (b"x".repeat(100), "failed to fill whole buffer"),
            (Vec::new(), "failed to fill whole buffer"),
        ] {
            let refused = relay(&mut &bytes[..], &mut Vec::new()).expect_err(says);
            assert!(refused.to_string().contains(says), "{says}: {refused}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        proptest::proptest!(|(noise: Vec<u8>, at in 0usize..512, records: Vec<u8>)| {
            let _ = relay(&mut &noise[..], &mut io::sink());
            let mut bytes = archive(&entry(b"name", b'0', b""), b"");
            for (place, byte) in bytes[at..].iter_mut().zip(&noise) {
                *place = *byte;
            }
            let _ = relay(&mut &bytes[..], &mut io::sink());
            let _ = Said::default().read_pax(&records);
            let _ = Said::default().read_pax(&[b"9 a=", &records[..]].concat());
        });
    }
}
