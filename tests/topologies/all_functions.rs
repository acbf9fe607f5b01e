//! A call of every function of the interfaces, on any kind of deployment.

use test_support::client::Client;

/// Calls every function and checks the results.
pub async fn exercise_all_functions(client: &Client) {
    client.set("", "k", b"v").await.unwrap();
    assert_eq!(
        client.get("", "k").await.unwrap().as_deref(),
        Some(&b"v"[..])
    );
    assert_eq!(client.get("", "missing").await.unwrap(), None);
    assert!(client.exists("", "k").await.unwrap());
    assert!(!client.exists("", "missing").await.unwrap());
    client.delete("", "k").await.unwrap();
    client.delete("", "k").await.unwrap();
    assert!(!client.exists("", "k").await.unwrap());

    for (delta, sum) in [(1, 1), (41, 42), (0, 42)] {
        assert_eq!(client.increment("", "n", delta).await.unwrap(), sum);
    }
    let large = 1 << 60;
    assert_eq!(client.increment("", "large", large).await.unwrap(), large);
    assert_eq!(client.increment("", "large", 1).await.unwrap(), large + 1);

    let keys: Vec<String> = (0..30).map(|n| format!("batch-{n}")).collect();
    let values: Vec<Vec<u8>> = (0..30_u8).map(|n| vec![n; 3]).collect();
    let pairs: Vec<(&str, &[u8])> = keys
        .iter()
        .zip(&values)
        .map(|(key, value)| (key.as_str(), value.as_slice()))
        .collect();
    client.set_many("b", &pairs).await.unwrap();
    let mut asked: Vec<&str> = keys.iter().map(String::as_str).collect();
    asked.insert(7, "missing");
    asked.push("batch-0");
    let found = client.get_many("b", &asked).await.unwrap();
    assert_eq!(found.len(), asked.len());
    for (key, entry) in asked.iter().zip(found) {
        let expected = pairs.iter().find(|(k, _)| k == key);
        let expected = expected.map(|(k, v)| ((*k).to_owned(), v.to_vec()));
        assert_eq!(entry, expected, "{key}");
    }
    client.delete_many("b", &asked[..10]).await.unwrap();
    let mut expected: Vec<String> = keys[9..].to_vec();
    expected.sort();
    assert_eq!(client.keys("b").await.unwrap(), expected);
}
