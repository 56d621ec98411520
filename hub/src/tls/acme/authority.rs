//! One certificate from an ACME authority, from the account to the chain.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::sleep;
use wire::tls::trust::Trust;

use super::{
    AcmePlan, Issued,
    directory::Client,
    store::{SavedAccount, SavedCertificate, Store},
};

/// How long an authority may take to look at the hub, and to issue.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often it is asked why it gave up, and how long is waited in between.
const REASON_TRIES: u32 = 5;
const REASON_AGAIN: Duration = Duration::from_secs(1);

/// Gets a certificate for all names of the plan.
///
/// # Errors
/// In the authority's words, or the network's.
pub(super) async fn obtain(plan: &AcmePlan, store: &Store, issued: &Issued) -> Result<SavedCertificate> {
    let account = account(plan, store).await?;
    let names: Vec<Identifier> = plan.domains.iter().map(|domain| Identifier::Dns(domain.clone())).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await.context("while ordering")?;
    // Whatever becomes of it, the answers to its questions are not needed afterwards.
    let _answers = Answers(issued);
    answer(&mut order, issued).await?;
    let retries = RetryPolicy::new().timeout(PATIENCE);
    match order.poll_ready(&retries).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) | Err(Error::Api(_)) => bail!("{}", refusal(&mut order).await),
        Err(error) => return Err(error).context("while the authority looked at the hub"),
    }
    let key = KeyPair::generate().context("while making a key")?;
    let mut params = CertificateParams::new(plan.domains.clone()).context("while making a request")?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).context("while making a request")?;
    order.finalize_csr(request.der()).await.context("while asking for the certificate")?;
    let chain = order.poll_certificate(&retries).await.context("while waiting for the certificate")?;
    Ok(SavedCertificate {
        directory: plan.directory.clone(),
        domains: plan.domains.clone(),
        chain,
        key: key.serialize_pem(),
    })
}

async fn account(plan: &AcmePlan, store: &Store) -> Result<Account> {
    let trust = plan.ca.clone().map_or(Trust::System, Trust::File);
    let client = Box::new(Client::believing(trust.client_config()?));
    let builder = Account::builder_with_http(client);
    if let Some(saved) = store.account().filter(|saved| saved.directory == plan.directory) {
        return builder.from_credentials(saved.credentials).await.context("while asking for the directory");
    }
    let contact: Vec<String> = plan.email.iter().map(|address| format!("mailto:{address}")).collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let (account, credentials) =
        builder.create(&new, plan.directory.clone(), None).await.context("while making an account")?;
    store
        .save_account(&SavedAccount { directory: plan.directory.clone(), credentials })
        .context("while keeping the account")?;
    Ok(account)
}

/// Prepares the answer to each question, and says that it may be asked.
async fn answer(order: &mut Order, issued: &Issued) -> Result<()> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.context("while reading what is to be proven")?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Invalid
            | AuthorizationStatus::Revoked
            | AuthorizationStatus::Expired
            | AuthorizationStatus::Deactivated => bail!("the authority gave up: {:?}", authorization.status),
        }
        let Identifier::Dns(name) = authorization.identifier().identifier.clone() else {
            bail!("the authority asks about something that is no host name");
        };
        let mut challenge = authorization
            .challenge(ChallengeType::TlsAlpn01)
            .ok_or_else(|| anyhow!("the authority does not prove {name} by tls-alpn-01"))?;
        let digest = challenge.key_authorization().digest();
        issued.prove(&name, digest.as_ref())?;
        challenge.set_ready().await.with_context(|| format!("while having {name} proven"))?;
    }
    Ok(())
}

/// Why nothing came of an order. An authority may show that it gave up before it shows why, so it is asked more than once.
async fn refusal(order: &mut Order) -> String {
    for _ in 0..REASON_TRIES {
        if let Some(reason) = reason(order).await {
            return reason;
        }
        sleep(REASON_AGAIN).await;
    }
    "the authority refused the order without a reason".to_owned()
}

async fn reason(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else { continue };
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        if let Some(error) = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Some(format!("the authority could not verify {name}: {error}"));
        }
    }
    None
}

/// Answers to an authority's questions, until dropped.
struct Answers<'a>(&'a Issued);

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.0.forget_proofs();
    }
}
