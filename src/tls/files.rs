//! Finds certificates and their keys at the paths that the command line names.
//!
//! A file has the certificate, those of its issuers, and the key (`HAProxy`'s
//! `crt`), or the key is in a file beside it. A folder has any number of them,
//! its own folders included: Kubernetes' `tls.crt` and `tls.key` as well as
//! certbot's `live/NAME/fullchain.pem` and `privkey.pem`.

use std::{
    ffi::OsStr,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use memchr::memmem;

/// What a folder's certificates end in. The other files there are not read.
const ENDINGS: [&str; 3] = ["pem", "crt", "cer"];

/// What [`found`] says of the usual contents.
const CERTIFICATE: &str = "a certificate";
const KEY: &str = "a private key";

/// How deep folders in a folder are looked into.
const DEPTH: usize = 1;

/// A certificate and its key, as they were read.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    /// The certificate's file.
    pub(super) certificate: PathBuf,
    /// What is in it: PEM, the server's own certificate first.
    pub(super) chain: Vec<u8>,
    /// The key's file, where it is another.
    pub(super) key: Option<(PathBuf, Vec<u8>)>,
}

impl Pair {
    /// The file that has the key, and what is in it.
    pub(super) fn key(&self) -> (&Path, &[u8]) {
        match &self.key {
            Some((path, bytes)) => (path, bytes),
            None => (&self.certificate, &self.chain),
        }
    }
}

#[cfg(test)]
impl Pair {
    /// As if it had been read from one file.
    pub(super) fn of(issued: &super::fixture::Issued) -> Self {
        Self {
            certificate: "site.pem".into(),
            chain: issued.combined().into(),
            key: None,
        }
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key has no place in a log.
        f.debug_struct("Pair")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Reads every certificate at the paths, in their order; those of a folder in
/// the order of their names.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Pair>, String> {
    let mut pairs = Vec::new();
    for path in paths {
        let before = pairs.len();
        if path.is_dir() {
            folder(path, DEPTH, &mut pairs)?;
        } else {
            pairs.push(file(path)?);
        }
        if pairs.len() == before {
            return Err(format!(
                "there is no certificate with a key in {}: expected files such as site.pem with \
                 both, tls.crt with tls.key, or fullchain.pem with privkey.pem",
                path.display()
            ));
        }
    }
    Ok(pairs)
}

/// Reads a bundle of certificates, such as that of the authorities to trust.
pub(super) fn bundle(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|err| unreadable(path, &err))
}

fn file(path: &Path) -> Result<Pair, String> {
    if let Some(pair) = with_key(path)? {
        return Ok(pair);
    }
    let file = path.display();
    let found = found(&bundle(path)?);
    if found.contains(KEY) {
        return Err(format!(
            "{file} has a private key and no certificate: expected the certificate's file, with \
             the key in it or beside it"
        ));
    }
    if found != CERTIFICATE {
        return Err(format!(
            "there is no certificate in {file} but {found}: expected PEM, \
             -----BEGIN CERTIFICATE-----"
        ));
    }
    let beside = beside(path).map(|key| key.display().to_string());
    Err(format!(
        "{file} has no private key: add it to the file, or put it beside it as {}",
        beside.collect::<Vec<_>>().join(" or ")
    ))
}

/// What is in a file, as its first PEM label says, in words for an error.
pub(super) fn found(text: &[u8]) -> String {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let label = memmem::find(text, BEGIN).and_then(|at| {
        let rest = text.get(at + BEGIN.len()..)?;
        let label = rest.get(..memmem::find(rest, b"-----")?)?;
        let usual = |c: &u8| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == b' ';
        std::str::from_utf8(label)
            .ok()
            .filter(|_| label.len() <= 40 && label.iter().all(usual))
    });
    match label {
        _ if text.is_empty() => "nothing: it is empty".to_owned(),
        Some("CERTIFICATE") => CERTIFICATE.to_owned(),
        Some(label) if label.ends_with("PRIVATE KEY") => KEY.to_owned(),
        Some(label) => format!("a {label}"),
        None => "something that is no PEM".to_owned(),
    }
}

fn folder(path: &Path, depth: usize, pairs: &mut Vec<Pair>) -> Result<(), String> {
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = entries.map_err(|err| unreadable(path, &err))?;
    entries.sort_unstable_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // Kubernetes keeps the real files in folders such as `..data`, and
        // links to them.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            if depth > 0 {
                folder(&path, depth - 1, pairs)?;
            }
        } else if is_certificate(&path) {
            pairs.extend(with_key(&path)?);
        }
    }
    Ok(())
}

fn is_certificate(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str);
    ending.is_some_and(|ending| ENDINGS.contains(&ending))
}

/// The certificate with its key; `None` if there is no key, or if there is
/// nothing but one.
fn with_key(path: &Path) -> Result<Option<Pair>, String> {
    let chain = fs::read(path).map_err(|err| unreadable(path, &err))?;
    let is_key = has(&chain, b"PRIVATE KEY-----");
    if is_key && !has(&chain, b"CERTIFICATE-----") {
        return Ok(None);
    }
    let pair = |key| Pair {
        certificate: path.to_owned(),
        chain,
        key,
    };
    if is_key {
        return Ok(Some(pair(None)));
    }
    for key in beside(path) {
        match fs::read(&key) {
            Ok(bytes) => return Ok(Some(pair(Some((key, bytes))))),
            Err(err) if err.kind() == io::ErrorKind::NotFound => {}
            Err(err) => return Err(unreadable(&key, &err)),
        }
    }
    Ok(None)
}

/// Where the key of a certificate may be: `site.pem.key` and `site.key` for
/// `site.pem`, and certbot's name for it.
fn beside(path: &Path) -> impl Iterator<Item = PathBuf> {
    let mut appended = path.as_os_str().to_owned();
    appended.push(".key");
    let of_certbot = path.file_name() == Some(OsStr::new("fullchain.pem"));
    let of_certbot = of_certbot.then(|| path.with_file_name("privkey.pem"));
    [appended.into(), path.with_extension("key")]
        .into_iter()
        .chain(of_certbot)
}

fn has(text: &[u8], part: &[u8]) -> bool {
    memmem::find(text, part).is_some()
}

fn unreadable(path: &Path, err: &io::Error) -> String {
    let hint = match err.kind() {
        io::ErrorKind::NotFound => "; check the path",
        io::ErrorKind::PermissionDenied => "; let this user read it",
        _ => "",
    };
    format!("cannot read {}: {err}{hint}", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::tls::fixture::Folder;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\n";

    /// The certificates that are found, each with its key's file.
    fn found(path: &Path) -> Vec<(String, String)> {
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let pairs = read(&[path.to_owned()]).unwrap();
        let names = pairs.iter().map(|pair| {
            assert!(has(pair.key().1, KEY.as_bytes()), "{pair:?}");
            (name(&pair.certificate), name(pair.key().0))
        });
        names.collect()
    }

    fn pair(certificate: &str, key: &str) -> (String, String) {
        (certificate.to_owned(), key.to_owned())
    }

    #[test]
    fn a_key_is_in_the_certificates_file_or_beside_it() {
        let folder = Folder::new();
        folder.write("both.pem", &[CERTIFICATE, KEY].concat());
        for name in ["a.crt", "b.pem"] {
            folder.write(name, CERTIFICATE);
        }
        folder.write("a.key", KEY);
        folder.write("b.pem.key", KEY);
        assert_eq!(
            found(&folder.path("both.pem")),
            [pair("both.pem", "both.pem")]
        );
        assert_eq!(found(&folder.path("a.crt")), [pair("a.crt", "a.key")]);
        assert_eq!(found(&folder.path("b.pem")), [pair("b.pem", "b.pem.key")]);
        let all = [
            pair("a.crt", "a.key"),
            pair("b.pem", "b.pem.key"),
            pair("both.pem", "both.pem"),
        ];
        assert_eq!(found(&folder.path("")), all, "in the order of their names");
    }

    #[test]
    fn what_certbot_leaves_is_found_in_its_folder_and_in_the_one_above() {
        let folder = Folder::new();
        folder.write("README", "");
        for name in ["cert.pem", "chain.pem", "fullchain.pem"] {
            folder.write(&format!("a.example/{name}"), CERTIFICATE);
        }
        folder.write("a.example/privkey.pem", KEY);
        let expected = [pair("fullchain.pem", "privkey.pem")];
        assert_eq!(found(&folder.path("a.example")), expected);
        assert_eq!(found(&folder.path("")), expected);
    }

    #[test]
    fn a_secret_of_kubernetes_is_found_once_behind_its_links() {
        let folder = Folder::new();
        folder.write("..2026_11_22/tls.crt", CERTIFICATE);
        folder.write("..2026_11_22/tls.key", KEY);
        folder.write("..2026_11_22/ca.crt", CERTIFICATE);
        symlink("..2026_11_22", folder.path("..data")).unwrap();
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(format!("..data/{name}"), folder.path(name)).unwrap();
        }
        assert_eq!(found(&folder.path("")), [pair("tls.crt", "tls.key")]);
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let folder = Folder::new();
        folder.write("lonely.crt", CERTIFICATE);
        for (name, hint) in [
            ("lonely.crt", "lonely.crt.key or "),
            ("absent.pem", "absent.pem: No such file"),
            ("", "tls.crt with tls.key"),
        ] {
            let err = read(&[folder.path(name)]).unwrap_err();
            assert!(err.contains(hint), "{err}");
        }
    }
}
