//! The outputs of `kvredis check` in the pages are those of the program, apart from durations and the
//! version of the server.

// Guarantees: G58

use std::fs;

use tempfile::TempDir;
use test_support::ports;
use test_support::redis::Redis;

use crate::run::kvredis;

const PAGES: [&str; 2] = ["README.md", "docs/check.md"];
const PASSWORD: &str = "secret";

/// A command of a page, and the output below it.
struct Example {
    command: String,
    output: String,
}

fn examples(page: &str) -> Vec<Example> {
    let text = fs::read_to_string(page).unwrap();
    let blocks = text.split("```console\n$ kvredis check ").skip(1);
    let blocks = blocks.map(|rest| rest.split("\n```").next().unwrap());
    let examples = blocks.filter_map(|block| block.split_once('\n'));
    let examples = examples.filter(|(_, output)| !output.starts_with("$ "));
    examples
        .map(|(command, output)| Example {
            command: command.replace('\'', ""),
            output: output.to_owned(),
        })
        .collect()
}

/// The output with `_` for everything that differs between runs and servers.
fn masked(output: &str) -> String {
    let mut lines = Vec::new();
    for line in output.trim_end().lines() {
        let words = line.split(' ').collect::<Vec<_>>();
        let masked = words.iter().enumerate().map(|(at, word)| {
            let is_duration = words.get(at + 1).is_some_and(|next| next.starts_with("ms"));
            let is_server = line.contains(" server ") && line.contains(", ");
            let is_product = is_server && matches!(*word, "Redis" | "Valkey");
            let is_version = is_server && word.starts_with(|c: char| c.is_ascii_digit());
            if is_duration || is_product || is_version {
                "_"
            } else {
                word
            }
        });
        lines.push(masked.collect::<Vec<_>>().join(" "));
    }
    lines.join("\n")
}

#[tokio::test]
async fn outputs_in_pages_match_the_program() {
    let redis = Redis::start().await;
    let server = redis.port().to_string();
    let unused = ports::free().to_string();
    let password = format!(">{PASSWORD}");
    let orders = ["on", &password, "~*", "&*", "+@all"];
    let reader = ["on", &password, "~*", "+ping", "+client|setname", "+info"];
    let reads = ["+get", "+exists", "+scan", "+mget"];
    let () = redis
        .command(&[&["ACL", "SETUSER", "orders"][..], &orders].concat())
        .await;
    let () = redis
        .command(&[&["ACL", "SETUSER", "reader"][..], &reader, &reads].concat())
        .await;
    let folder = TempDir::new().unwrap();
    let secrets = folder.path().to_str().unwrap();
    fs::write(folder.path().join("password"), PASSWORD).unwrap();

    let mut compared = 0;
    for page in PAGES {
        for example in examples(page) {
            let command = example
                .command
                .replace("127.0.0.1:6379", &format!("127.0.0.1:{server}"))
                .replace("127.0.0.1:6380", &format!("127.0.0.1:{unused}"))
                .replace("/run/secrets", secrets);
            let words = ["check"].into_iter().chain(command.split(' '));
            let ran = kvredis(&words.collect::<Vec<_>>()).await;
            let printed = ran
                .out
                .replace(&format!("127.0.0.1:{server}"), "127.0.0.1:6379")
                .replace(&format!("127.0.0.1:{unused}"), "127.0.0.1:6380");
            assert_eq!(
                masked(&printed),
                masked(&example.output),
                "{page}: kvredis check {}",
                example.command
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 4, "outputs in {PAGES:?}");
}
