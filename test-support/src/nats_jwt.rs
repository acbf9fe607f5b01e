//! A NATS user with a JWT: its operator and account, and the server's configuration for them.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A user of a new account.
pub struct JwtUser {
    /// The signed claims.
    pub jwt: String,
    /// The private key.
    pub seed: String,
    folder: TempDir,
}

impl JwtUser {
    /// A user without restrictions.
    pub fn generate() -> Self {
        let operator = KeyPair::new_operator();
        let account = KeyPair::new_account();
        let user = KeyPair::new_user();
        let operator_jwt = sign(&operator, &operator, json!({ "type": "operator" }));
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1,
        });
        let account_claims = json!({ "type": "account", "limits": limits });
        let account_jwt = sign(&operator, &account, account_claims);
        let user_claims = json!({
            "type": "user", "subs": -1, "data": -1, "payload": -1, "pub": {}, "sub": {},
        });
        let folder = TempDir::new().expect("a temporary folder");
        let id = account.public_key();
        let config = format!(
            "operator: {operator_jwt}\nresolver: MEMORY\nresolver_preload: {{ {id}: {account_jwt} }}\n"
        );
        fs::write(folder.path().join("nats.conf"), config).expect("a file");
        Self {
            jwt: sign(&account, &user, user_claims),
            seed: user.seed().expect("a key with a seed"),
            folder,
        }
    }

    /// The path of the configuration file of a server that knows the account.
    pub fn server_config(&self) -> String {
        self.folder.path().join("nats.conf").display().to_string()
    }
}

fn sign(issuer: &KeyPair, subject: &KeyPair, mut claims: Value) -> String {
    claims["version"] = json!(2);
    let claims = json!({
        "jti": subject.public_key(),
        "iat": 1_700_000_000,
        "iss": issuer.public_key(),
        "sub": subject.public_key(),
        "name": "test",
        "nats": claims,
    });
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = issuer.sign(signed.as_bytes()).expect("a private key");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}
