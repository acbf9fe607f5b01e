//! Malformed values of the setting `URL` that contain a password: what people write in the manifests,
//! issues and pages of other products, and slips in kvredis's own forms.

/// `P` stands for the password.
const FORMS: &[&str] = &[
    // Connection strings of StackExchange.Redis, and of other products of .NET and Azure.
    "redis://h.example,password=P,ssl=True",
    "h.example,password=P,ssl=True",
    "h.example:6380,password=P,ssl=True,abortConnect=False",
    "h1.example:6379,h2.example:6379,password=P",
    "rediss://h.example:6380,password=P,ssl=True",
    "redis://h.example:6379,user=app,password=P",
    "redis://u:x@h.example,password=P",
    "valkey://h.example:6379/0,password=P",
    "password=P,h.example:6379",
    "Server=h.example;Password=P;SSL=true",
    "Endpoint=h.example;Password=P",
    "redis-sentinel://h.example?sentinelServiceName=main,password=P",
    "redis-cluster://h.example,password=P",
    "redis-cluster://h.example?node=b.example,password=P",
    "redis+unix:///run/redis.sock,password=P",
    "redis+unix:///run/redis.sock password=P",
    // JSON, YAML, TOML, and lines of environment files.
    r#"{"password":"P","url":"redis://h"}"#,
    r#"{"url":"redis://:P@h.example:6379"}"#,
    r#"{"host":"h.example","port":6379,"password":"P"}"#,
    r#"["redis://:P@h.example"]"#,
    "url: redis://:P@h.example",
    "host: h.example\npassword: P",
    "host = \"h.example\"\npassword = \"P\"",
    "REDIS_PASSWORD=P REDIS_URL=redis://h",
    "REDIS_PASSWORD=P",
    "REDIS_URL=redis://:P@h.example",
    "export REDIS_URL=redis://:P@h.example:6379/0",
    "URL=redis://:P@h.example",
    "URL: \"redis://:P@h.example\"",
    // Command lines.
    "redis-cli -h h -a P",
    "redis-cli -u redis://:P@h.example",
    "redis-cli --pass P -h h.example",
    "valkey-cli -h h.example --user u --pass P",
    "REDISCLI_AUTH=P redis-cli -h h.example",
    "-h h.example -a P",
    "AUTH P",
    "requirepass P",
    "user app on >P ~* +@all",
    "docker run redis --requirepass P",
    // Addresses of other products.
    "http://u:P@h.example",
    "https://h.example?token=P",
    "https://eu1-h-1.upstash.io?_token=P",
    "https://default:P@eu1-h-1.upstash.io",
    "tcp://h.example:6379?auth=P",
    "tcp://:P@h.example:6379",
    "tls://:P@h.example:6379",
    "ssl://u:P@h.example:6379",
    "memcached://u:P@h.example",
    "postgres://u:P@h.example/db",
    "postgresql://u:P@h.example/db",
    "mysql://u:P@h.example/db",
    "mongodb://u:P@h.example/db",
    "amqp://u:P@h.example",
    "nats://u:P@h.example:4222",
    "jdbc:redis://u:P@h.example",
    "redis-socket:///run/redis.sock?password=P",
    "redis+socket:///run/redis.sock?password=P",
    "redis+sentinel://:P@h.example/main",
    "redis+cluster://:P@h.example",
    "rediscluster://:P@h.example",
    "redis-sentinel://:P@h.example/0#main",
    "redis-sentinel://:P@h.example/main",
    "P://h.example",
    // No scheme.
    "P",
    ":P",
    ":P@",
    ":P@h",
    ":P@h.example",
    ":P@h.example:6379",
    "u:P@h",
    "u:P@h.example:6379/0",
    "u:P",
    "P@h.example",
    "P@10.0.0.7:6379",
    "h.example P",
    "h.example:6379 P",
    "h.example|P",
    "h.example:P",
    "10.0.0.7:P",
    "localhost:P",
    "[::1]:P",
    "[::1]P",
    "/P",
    "//u:P@h.example",
    "/run/redis.sock?pass=P",
    // Slips.
    "redis:/u:P@h.example",
    "redis:u:P@h.example",
    "redis//u:P@h.example",
    "redis:///u:P@h.example",
    "redis:\\\\u:P@h.example",
    "redis;//u:P@h.example",
    "redis ://u:P@h.example",
    "reddis://u:P@h.example",
    "redis://u:P",
    "redis://:P",
    "redis://:P@",
    "redis://u:P@",
    "redis://u:P@:6379",
    "redis://u:P@h.example:port",
    "redis://u:P@h.example:99999",
    "redis://u:P@h.example:6379:0",
    "redis://u:P@h.example/zero",
    "redis://u:P@h.example/-1",
    "redis://u:P@h.example/0/1",
    "redis://u:P@h.example?db=0",
    "redis://u:P@h.example#insecure",
    "redis://u:P@[::1",
    "redis://u:P@::1",
    "redis://u:P@h example",
    "redis://u:P@h.example,h2.example",
    "redis://u:P@h.example:1,h2.example:2",
    "redis://u:P@<host>:6379",
    "redis://u:P@${HOST}:6379",
    "redis://u:P@{{ host }}",
    "redis://u:P%ff@h.example",
    "redis://h.example:P",
    "redis://h.example/P",
    "redis://h.example/0/P",
    "redis://h.example/0?password=P",
    "redis://h.example?password=P",
    "redis://h.example?auth=P",
    "redis://h.example#P",
    "redis://h.example password=P",
    "redis://h.example;password=P",
    "redis://h.example&password=P",
    "redis://h.example|P",
    "redis://h.example P",
    "redis://h.example%2Cpassword=P",
    "redis://<P>@",
    "redis://u:P/@h.example:port",
    "redis://u:P?@h.example",
    "redis://u:P#@h.example",
    "redis://u:a/P@h.example",
    "redis://u:a?P@h.example",
    "redis://u:a#P@h.example",
    "redis://h.example\nP",
    "redis://h\n.example/P",
    "redis://h.example\tP",
    "redis+unix://u:P@/run/redis.sock",
    "redis+unix://P/run/redis.sock",
    "redis+unix:///run/redis.sock?secret=P",
    "redis+unix:///run/redis.sock?db=P",
    "redis+unix:///run/redis.sock#P",
    "redis+unix://",
    "redis-cluster://h.example?password=P",
    "redis-cluster://h.example/P",
    "redis-cluster://h.example?node=u:P@b.example",
    "redis-cluster://h.example?node=b.example:P",
    "redis-cluster://h.example?nodes=P",
    "redis-cluster://u:P@h.example/1",
    "redis-cluster://u:P@h1.example:1,h2.example:2",
    "redis-sentinel://u:P@h.example",
    "redis-sentinel://u:P@h.example?sentinelServiceName=",
    "redis-sentinel://u:P@h.example?master=main",
    "redis-sentinel://h.example?sentinelPassword=P",
    "redis-sentinel://h.example?sentinelPassword=P@1",
    "redis-sentinel://h.example?sentinelPassword=1@P",
    "redis-sentinel://h.example?sentinelServiceName=main&password=P",
    "redis-sentinel://h.example?sentinelServiceName=main&sentinelPasword=P",
    "redis-sentinel://h.example?sentinelServiceName=main&node=:P@b.example",
    "redis-sentinel://h.example/P?sentinelServiceName=main",
    "redis-sentinel://u:P@h1.example,h2.example?sentinelServiceName=main",
];

/// Passwords with characters that separate the parts of a URL; `P` stands for the marker.
const PASSWORDS: &[&str] = &["P", "a,P", "P=%"];

/// More than 200 malformed URLs that contain `marker` in a password.
pub fn malformed_urls(marker: &str) -> Vec<String> {
    let mut urls = Vec::new();
    for form in FORMS {
        for password in PASSWORDS {
            // Only the placeholder is a `P` that stands alone.
            let url = replaced(form, &replaced(password, marker));
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
    }
    urls
}

/// The text with every `P` that is not part of a word replaced.
fn replaced(text: &str, by: &str) -> String {
    let is_word = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    let characters: Vec<char> = text.chars().collect();
    let mut replaced = String::new();
    for (index, character) in characters.iter().enumerate() {
        let before = index
            .checked_sub(1)
            .and_then(|i| characters.get(i).copied());
        let after = characters.get(index + 1).copied();
        if *character == 'P' && !is_word(before) && !is_word(after) {
            replaced.push_str(by);
        } else {
            replaced.push(*character);
        }
    }
    replaced
}
