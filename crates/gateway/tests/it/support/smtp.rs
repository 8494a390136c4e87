//! A mail server that takes everything and keeps it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// One mail: the recipient of its envelope, and its text as it came.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) to: String,
    pub(crate) text: String,
}

/// A server on a port of its own. Its threads end with the test.
pub(crate) struct MailServer {
    pub(crate) address: SocketAddr,
    mails: Arc<(Mutex<Vec<Mail>>, Condvar)>,
}

impl MailServer {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mails = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let shared = Arc::clone(&mails);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mails = Arc::clone(&shared);
                std::thread::spawn(move || talk(stream, &mails).ok());
            }
        });
        Self { address, mails }
    }

    /// All mails, once `enough` says so.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, enough: impl Fn(&[Mail]) -> bool) -> Vec<Mail> {
        let (mails, came) = &*self.mails;
        let waiting = mails.lock().unwrap();
        let (mails, timeout) =
            came.wait_timeout_while(waiting, Duration::from_secs(30), |mails| !enough(mails)).unwrap();
        assert!(!timeout.timed_out(), "{what}: {mails:?}");
        mails.clone()
    }
}

fn talk(stream: TcpStream, mails: &(Mutex<Vec<Mail>>, Condvar)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut mail = Mail { to: String::new(), text: String::new() };
    reader.get_mut().write_all(b"220 here\r\n")?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match line.split([' ', ':', '\r']).next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "RCPT" => {
                mail.to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                "250 ok\r\n"
            }
            "DATA" => {
                reader.get_mut().write_all(b"354 go on\r\n")?;
                loop {
                    line.clear();
                    if reader.read_line(&mut line)? == 0 || line == ".\r\n" {
                        break;
                    }
                    mail.text.push_str(&line);
                }
                mails.0.lock().unwrap().push(mail.clone());
                mails.1.notify_all();
                mail.text.clear();
                "250 taken\r\n"
            }
            "QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        reader.get_mut().write_all(answer.as_bytes())?;
    }
}
