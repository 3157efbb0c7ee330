//! A Postfix of a test's own: TLS from the first byte, STARTTLS, and logins by password.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::certificates::Certificates;
use super::port::free_port;
use super::process::Program;

/// A start takes a second; the machine may be busy.
const READY: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Accounts that every system has, in place of those that installing Postfix would make.
const OWNER: &str = "mail";
const GROUP: &str = "uucp";
const NOBODY: &str = "nobody";

const QUEUES: [&str; 14] = [
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "maildrop", "pid", "private",
    "public", "saved", "trace",
];

const SERVICES: &str = "\
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
";

/// A running Postfix, which knows the mailboxes anna@y.test and bert@y.test and takes mail of whoever logs in as `anna`.
/// Dropped, it ends.
#[derive(Debug)]
pub struct Postfix {
    // Dropped, and so killed, before its folder is deleted.
    _master: Program,
    folder: TempDir,
    implicit: u16,
    starttls: u16,
}

impl Postfix {
    /// The password of the user `anna`.
    pub const PASSWORD: &'static str = "correct horse";

    /// Starts it.
    ///
    /// # Errors
    /// When it is not installed, does not get ready, or this process is not root's.
    pub async fn start() -> Result<Self> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "Postfix delivers mail under the accounts of its receivers, so only root can start it: run these tests as \
             root, in a container for example"
        );
        let root = match std::env::var_os("CM_POSTFIX") {
            Some(root) => PathBuf::from(root),
            None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/postfix"),
        };
        let root = root
            .canonicalize()
            .with_context(|| format!("there is no Postfix at {}: run make test (or tests/setup)", root.display()))?;
        let folder = tempfile::tempdir()?;
        let (implicit, starttls) = (free_port()?, free_port()?);
        let home = Home { root: &root, folder: folder.path() };
        home.make(implicit, starttls)?;
        home.add_user("anna", Self::PASSWORD).await?;
        let master = Program::at(root.join("usr/lib/postfix/sbin/master"))
            .args(["-d", "-c"])
            .arg(folder.path().join("etc"))
            .env("LD_LIBRARY_PATH", home.libraries()?)
            .start()?;
        let postfix = Self { _master: master, folder, implicit, starttls };
        for port in [starttls, implicit] {
            postfix.wait_until_it_listens(port).await?;
        }
        Ok(postfix)
    }

    /// The port that speaks TLS from the first byte.
    #[must_use]
    pub fn implicit(&self) -> u16 {
        self.implicit
    }

    /// The port that wants STARTTLS.
    #[must_use]
    pub fn starttls(&self) -> u16 {
        self.starttls
    }

    /// Whom to trust.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("etc/ca.pem")
    }

    /// The mails that a mailbox has, as soon as there are so many.
    ///
    /// # Errors
    /// When there are not in time, or more.
    pub async fn mails_of(&self, name: &str, count: usize) -> Result<Vec<String>> {
        let folder = self.folder.path().join("mail").join(name).join("new");
        let read = || -> Result<Vec<String>> {
            let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
            entries.map(|entry| Ok(std::fs::read_to_string(entry?.path())?)).collect()
        };
        let arrived = async {
            loop {
                let mails = read()?;
                if mails.len() >= count {
                    return Ok::<_, anyhow::Error>(mails);
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        match tokio::time::timeout(READY, arrived).await {
            Ok(mails) => {
                let mails = mails?;
                ensure!(mails.len() == count, "{name} has {} mails, not {count}", mails.len());
                Ok(mails)
            }
            Err(_) => bail!("{name} has no {count} mails\n{}", self.log()),
        }
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log/mail.log")).unwrap_or_default()
    }

    async fn wait_until_it_listens(&self, port: u16) -> Result<()> {
        let greeted = async {
            loop {
                if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await {
                    if port == self.implicit {
                        return;
                    }
                    let mut greeting = [0; 3];
                    if stream.read_exact(&mut greeting).await.is_ok() && greeting == *b"220" {
                        return;
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(READY, greeted).await.with_context(|| format!("Postfix is not ready\n{}", self.log()))
    }
}

/// Where a Postfix is unpacked, and where it lives.
struct Home<'a> {
    root: &'a Path,
    folder: &'a Path,
}

impl Home<'_> {
    fn make(&self, implicit: u16, starttls: u16) -> Result<()> {
        // Its parts run under several accounts.
        std::fs::set_permissions(self.folder, std::fs::Permissions::from_mode(0o755))?;
        for name in ["etc/sasl", "queue", "data", "mail", "log"] {
            std::fs::create_dir_all(self.folder.join(name))?;
        }
        let (owner, group, nobody) = (id_of("passwd", OWNER)?, id_of("group", GROUP)?, id_of("passwd", NOBODY)?);
        for (name, owner) in [("data", owner), ("mail", nobody)] {
            chown(self.folder.join(name), Some(owner), None)?;
        }
        for name in QUEUES {
            let path = self.folder.join("queue").join(name);
            std::fs::create_dir(&path)?;
            let (owner, group, mode) = match name {
                "pid" => (None, None, 0o755),
                "maildrop" => (Some(owner), Some(group), 0o730),
                "public" => (Some(owner), Some(group), 0o710),
                _ => (Some(owner), None, 0o700),
            };
            chown(&path, owner, group)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        }
        let certificates = Certificates::generate()?;
        self.write("ca.pem", &certificates.authority)?;
        self.write("server.pem", &certificates.server)?;
        std::fs::set_permissions(self.folder.join("etc/server.pem"), std::fs::Permissions::from_mode(0o600))?;
        self.write("main.cf", &self.main(nobody)?)?;
        let listeners = format!(
            "127.0.0.1:{starttls} inet n - n - - smtpd\n  -o smtpd_tls_security_level=encrypt\n\
             127.0.0.1:{implicit} inet n - n - - smtpd\n  -o smtpd_tls_wrappermode=yes\n"
        );
        self.write("master.cf", &format!("{listeners}{SERVICES}"))?;
        let users = self.users();
        let sasl = format!(
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: {}\n",
            users.display()
        );
        self.write("sasl/smtpd.conf", &sasl)
    }

    fn main(&self, nobody: u32) -> Result<String> {
        let (root, folder) = (self.root.display(), self.folder.display());
        Ok(format!(
            "\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
daemon_directory = {root}/usr/lib/postfix/sbin
command_directory = {root}/usr/sbin
shlib_directory = {root}/usr/lib/postfix
meta_directory = {folder}/etc
mail_owner = {OWNER}
setgid_group = {GROUP}
default_privs = {NOBODY}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.y.test
mydestination =
mynetworks = 192.0.2.0/32
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = y.test
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = inline:{{ anna@y.test=anna/, bert@y.test=bert/ }}
virtual_minimum_uid = 1
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nobody}
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = {folder}/etc/sasl
smtpd_sasl_local_domain = y.test
smtpd_tls_auth_only = yes
smtpd_tls_security_level = may
smtpd_tls_chain_files = {folder}/etc/server.pem
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
default_transport = error:no mail leaves this test
maillog_file = {folder}/log/mail.log
maillog_file_prefixes = {folder}
import_environment = MAIL_CONFIG LANG=C LD_LIBRARY_PATH={libraries} SASL_PATH={plugins}
",
            libraries = self.libraries()?,
            plugins = self.plugins()?.display(),
        ))
    }

    /// Adds a user with a password.
    async fn add_user(&self, name: &str, password: &str) -> Result<()> {
        // It takes the password from its standard input.
        let mut command = tokio::process::Command::new(self.root.join("usr/sbin/saslpasswd2"));
        command.args(["-p", "-c", "-u", "y.test", "-f"]).arg(self.users()).arg(name).env_clear();
        command.env("LD_LIBRARY_PATH", self.libraries()?).env("SASL_PATH", self.plugins()?);
        let input = self.folder.join("etc/password");
        std::fs::write(&input, password)?;
        let output = command.stdin(std::fs::File::open(&input)?).output().await?;
        ensure!(output.status.success(), "saslpasswd2: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::remove_file(input)?;
        Ok(chown(self.users(), Some(id_of("passwd", OWNER)?), None)?)
    }

    fn users(&self) -> PathBuf {
        self.folder.join("etc/sasldb2")
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join("etc").join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The folder of the architecture's own libraries.
    fn library(&self) -> Result<PathBuf> {
        let libraries = self.root.join("usr/lib");
        for entry in std::fs::read_dir(&libraries)? {
            let path = entry?.path();
            if path.join("sasl2").is_dir() {
                return Ok(path);
            }
        }
        bail!("there is no Cyrus SASL at {}", libraries.display())
    }

    fn plugins(&self) -> Result<PathBuf> {
        Ok(self.library()?.join("sasl2"))
    }

    fn libraries(&self) -> Result<String> {
        Ok(format!("{}:{}", self.root.join("usr/lib/postfix").display(), self.library()?.display()))
    }
}

/// The number of an account or group.
fn id_of(file: &str, name: &str) -> Result<u32> {
    let path = Path::new("/etc").join(file);
    let text = std::fs::read_to_string(&path)?;
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    let id = line.and_then(|line| line.split(':').nth(2)).and_then(|id| id.parse().ok());
    id.with_context(|| format!("{} has no {name}", path.display()))
}
