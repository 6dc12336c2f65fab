//! Where secrets come from: `{ env = "NAME" }`, `{ file = "PATH" }`, or inline where only the
//! owner can read the file; other texts may come from the same sources. Knows no
//! secret's meaning.

use std::cell::RefCell;
use std::path::Path;

use super::Secrets;
use super::environment::Environment;
use super::files::Seen;
use super::tree::{Node, Origin, Table, Value};
use crate::secret::{Secret, file};
use crate::store::postgres::Password;

const EXPECTED: &str = "expected { env = \"NAME\" } or { file = \"PATH\" }";

/// Reads secrets, or only how they are written.
pub(super) struct SecretSources<'e> {
    pub(super) environment: &'e Environment,
    /// What relative paths are relative to.
    pub(super) folder: &'e Path,
    pub(super) secrets: Secrets,
    /// Nobody but its owner can read the configuration file.
    pub(super) file_is_private: bool,
    /// What should not be as it is.
    pub(super) warnings: RefCell<Vec<String>>,
    /// The files that were named, each in its state right before it was read.
    pub(super) seen: RefCell<Vec<Seen>>,
}

impl SecretSources<'_> {
    /// The secret, or why there is none. Under [`Secrets::Leave`] an empty one.
    pub(super) fn read(&self, node: &Node) -> Result<Secret, String> {
        let secret = match &node.value {
            Value::Table(source) => self.read_from(source)?,
            _ => self.read_inline(node)?,
        };
        match self.secrets {
            Secrets::Resolve if secret.expose().is_empty() => Err("the secret is empty".to_owned()),
            _ => Ok(secret),
        }
    }

    /// A secret that may be replaced while the process runs: one in a file is checked now, and read again
    /// whenever it is needed.
    pub(super) fn read_again(&self, node: &Node) -> Result<Password, String> {
        let secret = self.read(node)?;
        let file = match &node.value {
            Value::Table(source) => source.get("file"),
            _ => None,
        };
        let path = file.and_then(|path| path.value.text());
        Ok(match path {
            Some(path) => Password::In(self.folder.join(path)),
            None => Password::Given(secret),
        })
    }

    /// Whether a secret may stand where `node` is written.
    pub(super) fn may_stand_at(&self, node: &Node) -> bool {
        self.file_is_private || !matches!(node.origin, Origin::File(_))
    }

    /// A text that is no secret but may come from where secrets do; `None` if it does, under
    /// [`Secrets::Leave`].
    pub(super) fn read_text(&self, node: &Node) -> Result<Option<String>, String> {
        match (&node.value, self.secrets) {
            (Value::Table(source), Secrets::Leave) => self.read_from(source).map(|_| None),
            (Value::Table(source), Secrets::Resolve) => {
                let text = self.read_from(source)?;
                Ok(Some(text.expose().to_owned()))
            }
            _ => Ok(node.text().map(str::to_owned)),
        }
    }

    fn read_from(&self, source: &Table) -> Result<Secret, String> {
        let mut entries = source.iter();
        let (Some((kind, entry)), None) = (entries.next(), entries.next()) else {
            return Err(EXPECTED.to_owned());
        };
        let place = entry.value.text().filter(|place| !place.is_empty());
        match (kind.as_str(), place, self.secrets) {
            ("env", Some(_), Secrets::Leave) | ("file", Some(_), Secrets::Leave) => {
                Ok(Secret::from(""))
            }
            ("env", Some(name), Secrets::Resolve) => self.read_variable(name),
            ("file", Some(path), Secrets::Resolve) => self.read_file(&self.folder.join(path)),
            _ => Err(EXPECTED.to_owned()),
        }
    }

    fn read_inline(&self, node: &Node) -> Result<Secret, String> {
        let text = node
            .text()
            .ok_or_else(|| format!("{EXPECTED}, found {}", node.value.kind()))?;
        match self.may_stand_at(node) {
            true => Ok(Secret::from(text)),
            false => Err(format!(
                "{EXPECTED}; a secret may stand here only in a file of mode 0600"
            )),
        }
    }

    fn read_variable(&self, name: &str) -> Result<Secret, String> {
        let value = self
            .environment
            .get(name)
            .ok_or_else(|| format!("the environment variable {name} is not set"))?;
        let text = value
            .to_str()
            .ok_or_else(|| format!("the environment variable {name} is not UTF-8"))?;
        Ok(Secret::from(text))
    }

    /// Notes that what the file at `path` holds is in force, too.
    pub(super) fn sees(&self, path: &Path) {
        if self.secrets == Secrets::Resolve {
            self.seen.borrow_mut().push(Seen::now(path));
        }
    }

    fn read_file(&self, path: &Path) -> Result<Secret, String> {
        self.sees(path);
        let (secret, warning) =
            file::read_secret(path).map_err(|error| format!("{} {error}", path.display()))?;
        self.warnings.borrow_mut().extend(warning);
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::super::tree;
    use super::*;

    fn file(folder: &tempfile::TempDir, content: &str, mode: u32) -> PathBuf {
        let path = folder.path().join("key");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// What a `{ file = … }` gives, and the warnings.
    fn read(path: &Path) -> (Result<String, String>, Vec<String>) {
        let sources = SecretSources {
            environment: &Environment::default(),
            folder: Path::new(""),
            secrets: Secrets::Resolve,
            file_is_private: true,
            warnings: RefCell::default(),
            seen: RefCell::default(),
        };
        let origin = Origin::File(0..0);
        let node = tree::parse_value(&format!("{{ file = '{}' }}", path.display()), &origin);
        let read = sources.read(&node.unwrap());
        let read = read.map(|secret| secret.expose().to_owned());
        (read, sources.warnings.into_inner())
    }

    #[test]
    fn one_newline_at_the_end_is_not_part_of_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        for (content, secret) in [
            ("a b\n", "a b"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            (" a", " a"),
        ] {
            let (read, warnings) = read(&file(&folder, content, 0o600));
            assert_eq!(read.as_deref(), Ok(secret));
            assert!(warnings.is_empty());
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o620, 0o602, 0o666] {
            let (read, _) = read(&file(&folder, "key", mode));
            assert!(read.unwrap_err().contains("can be written"));
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_warned_about() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o444] {
            let (read, warnings) = read(&file(&folder, "key", mode));
            assert_eq!(read.as_deref(), Ok("key"));
            assert_eq!(warnings.len(), 1, "{mode:o}");
        }
    }

    #[test]
    fn an_empty_missing_huge_or_binary_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            read(&file(&folder, "\n", 0o600))
                .0
                .unwrap_err()
                .contains("empty")
        );
        assert!(read(&folder.path().join("none")).0.is_err());
        assert!(read(folder.path()).0.is_err());
        assert!(read(&file(&folder, &"k".repeat(70_000), 0o600)).0.is_err());
        let path = file(&folder, "", 0o600);
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read(&path).0.is_err());
    }
}
