//! Servers whose `SCAN` cursors are near 2^64, as those of ElastiCache Serverless
//! (spring-data-redis#2796). A fake serves here, because that product cannot be had: it speaks as much
//! of the protocol as a listing needs.

// Guarantees: G7

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use test_support::host::Link;
use test_support::test_env::TestEnv;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const PAGES: u64 = 9;

/// A fake node. Its cursors count in the upper bits.
#[derive(Clone)]
struct FakeNode {
    name: &'static str,
    /// The reply to `CLUSTER SLOTS`; a single server has none.
    slots: Option<String>,
}

impl FakeNode {
    fn reply(&self, words: &[String]) -> String {
        let word = |at: usize| words.get(at).map(String::as_str).unwrap_or_default();
        match word(0).to_ascii_uppercase().as_str() {
            "SCAN" => {
                let page = word(1).parse::<u64>().unwrap() >> 59;
                let next = (page + 1) % PAGES;
                let key = format!("{}-{page}", self.name);
                let cursor = (next << 59).to_string();
                format!(
                    "*2\r\n${}\r\n{cursor}\r\n*1\r\n${}\r\n{key}\r\n",
                    cursor.len(),
                    key.len()
                )
            }
            "CLUSTER" => match &self.slots {
                Some(slots) => slots.clone(),
                None => "-ERR This instance has cluster support disabled\r\n".to_owned(),
            },
            "INFO" => {
                let info = format!("run_id:{}", self.name);
                format!("${}\r\n{info}\r\n", info.len())
            }
            "PING" => "+PONG\r\n".to_owned(),
            _ => "+OK\r\n".to_owned(),
        }
    }

    async fn serve(self, listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(self.clone().talk(stream));
        }
    }

    async fn talk(self, stream: TcpStream) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let count = header(&mut stream).await?;
            let mut words = Vec::new();
            for _ in 0..count {
                let mut word = vec![0; header(&mut stream).await? + 2];
                stream.read_exact(&mut word).await.ok()?;
                word.truncate(word.len() - 2);
                words.push(String::from_utf8(word).unwrap());
            }
            let reply = self.reply(&words);
            stream.write_all(reply.as_bytes()).await.ok()?;
        }
    }
}

/// The number in a line such as `*3` or `$5`.
async fn header(stream: &mut BufReader<TcpStream>) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim_end().get(1..)?.parse().ok()
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Lists all keys behind `url`.
async fn keys_of(url: &str) -> BTreeSet<String> {
    let env = TestEnv::builder().unlinked().start().await;
    let link = Link::new("c", "default").config(&[("URL", url)]);
    let client = env.add_link(&link).await;
    let pages = client.pages("").await.unwrap();
    pages.into_iter().flat_map(|page| page.keys).collect()
}

fn keys(name: &str) -> impl Iterator<Item = String> {
    (0..PAGES).map(move |page| format!("{name}-{page}"))
}

#[tokio::test]
async fn listings_of_a_cluster_continue_with_cursors_near_2_to_the_64() {
    let ((one, first), (two, second)) = (listener().await, listener().await);
    let range = |from: u16, to: u16, port: u16| {
        format!("*3\r\n:{from}\r\n:{to}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
    };
    let slots = format!(
        "*2\r\n{}{}",
        range(0, 8_191, first),
        range(8_192, 16_383, second)
    );
    for (name, listener) in [("one", one), ("two", two)] {
        let slots = Some(slots.clone());
        tokio::spawn(FakeNode { name, slots }.serve(listener));
    }
    let found = keys_of(&format!("redis-cluster://127.0.0.1:{first}")).await;
    assert_eq!(found, keys("one").chain(keys("two")).collect());
}

#[tokio::test]
async fn listings_of_one_server_continue_with_cursors_near_2_to_the_64() {
    let (listener, port) = listener().await;
    let node = FakeNode {
        name: "one",
        slots: None,
    };
    tokio::spawn(node.serve(listener));
    let found = keys_of(&format!("redis://127.0.0.1:{port}")).await;
    assert_eq!(found, keys("one").collect());
}
