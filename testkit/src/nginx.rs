//! An nginx of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::Error;
use crate::account::Account;
use crate::greeting;
use crate::ports;
use crate::run_dir::RunDir;
use crate::search::Search;
use crate::server::{Plan, Server, guarded};
use crate::wait;

/// An `nginx` with one worker on a free loopback port, killed on drop.
#[derive(Debug)]
pub struct Nginx {
    // Declared before the folder: the server ends before its folder goes.
    server: Arc<Server>,
    _dir: RunDir,
}

impl Nginx {
    /// Options for a start.
    #[must_use]
    pub fn builder() -> NginxBuilder {
        NginxBuilder::default()
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Where the server listens; it stays the same over [`restart`](Self::restart).
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    /// The process id of the master while it runs; its worker is its child.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Stops all its processes (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn freeze(&self) -> Result<(), Error> {
        self.server.freeze()
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// When the server does not run.
    pub fn thaw(&self) -> Result<(), Error> {
        self.server.thaw()
    }

    /// Kills all its processes (SIGKILL) and returns when they are gone.
    ///
    /// # Errors
    /// When the system refuses the signal.
    pub fn kill(&self) -> Result<(), Error> {
        self.server.kill()
    }

    /// Starts a killed server again on the same port with the files it had cached, or kills and
    /// starts a running one.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn restart(&self) -> Result<(), Error> {
        let server = Arc::clone(&self.server);
        wait::blocking(move || server.restart()).await
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A restart under way on a blocking thread may still hold the server.
        let _ = self.server.kill();
    }
}

/// Options for [`Nginx`].
#[derive(Debug, Clone, Default)]
pub struct NginxBuilder {
    http: String,
    server: String,
    search: Search,
}

impl NginxBuilder {
    /// Directives of the `http` block, such as `upstream` or `proxy_cache_path`. A relative path
    /// lies in the server's own folder.
    #[must_use]
    pub fn http(mut self, directives: impl Into<String>) -> Self {
        self.http = directives.into();
        self
    }

    /// Directives of the one `server` block, such as `location`; it listens already.
    #[must_use]
    pub fn server(mut self, directives: impl Into<String>) -> Self {
        self.server = directives.into();
        self
    }

    /// Looks for the program elsewhere.
    #[cfg(test)]
    pub(crate) fn search(mut self, search: Search) -> Self {
        self.search = search;
        self
    }

    /// Starts the server and waits until its worker answers.
    ///
    /// # Errors
    /// When `nginx` is missing, refuses the directives (its words are in the error) or does not
    /// answer.
    pub async fn start(self) -> Result<Nginx, Error> {
        wait::blocking(move || self.start_blocking()).await
    }

    fn start_blocking(self) -> Result<Nginx, Error> {
        let program = self.search.find("nginx", "nginx")?;
        let dir = RunDir::new()?;
        let server = Server::start_on_free_port(|port| {
            let (search, program) = (self.search.clone(), program.clone());
            let (folder, text) = (dir.path().to_owned(), self.text(port));
            Plan {
                name: "nginx".to_owned(),
                addr: ports::loopback(port),
                log: dir.path().join("nginx.log"),
                patience: wait::PATIENCE,
                greeting: greeting::nginx,
                command: Box::new(move || {
                    write(&folder, &text)?;
                    let mut command = guarded(&search, Account::Own, &program)?;
                    command.current_dir(&folder).args(["-e", "stderr", "-c", "nginx.conf", "-p"]);
                    command.arg(&folder);
                    Ok(command)
                }),
            }
        })?;
        Ok(Nginx { server: Arc::new(server), _dir: dir })
    }

    /// The configuration. Every folder that nginx was compiled with is replaced, as one is the
    /// system's and may not be ours to write.
    fn text(&self, port: u16) -> String {
        let Self { http, server, search: _ } = self;
        format!(
            "daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {http}
    server {{
        listen 127.0.0.1:{port};
        location = {path} {{ return 204; }}
        {server}
    }}
}}
",
            path = greeting::NGINX_PATH,
        )
    }
}

fn write(folder: &Path, text: &str) -> Result<(), Error> {
    let failed = Error::io("write the configuration of nginx");
    fs::write(folder.join("nginx.conf"), text).map_err(failed)
}
