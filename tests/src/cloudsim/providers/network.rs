//! Interfaces, addresses, load balancers and gateways, in the shape of the API version 2024-05-01.

use serde_json::{Value, json};

use super::{Definition, End, Form, SetSome, Shape};

const PROVIDER: &str = "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Network";
const FORM: Form = Form::Pages { token: "%24skiptoken", end: End::Absent };

pub(in crate::cloudsim) const NETWORK_INTERFACE: Definition = Definition {
    namespace: "Microsoft.Network",
    types: &["networkInterfaces"],
    parent: None,
    form: FORM,
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Network/networkInterfaces/nic{n}",
    permission: "Microsoft.Network/networkInterfaces/read",
    generate: network_interface,
};

pub(in crate::cloudsim) const PUBLIC_IP_ADDRESS: Definition = Definition {
    namespace: "Microsoft.Network",
    types: &["publicIPAddresses"],
    parent: None,
    form: FORM,
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Network/publicIPAddresses/pip{n}",
    permission: "Microsoft.Network/publicIPAddresses/read",
    generate: public_ip_address,
};

pub(in crate::cloudsim) const LOAD_BALANCER: Definition = Definition {
    namespace: "Microsoft.Network",
    types: &["loadBalancers"],
    parent: None,
    form: FORM,
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Network/loadBalancers/lb{n}",
    permission: "Microsoft.Network/loadBalancers/read",
    generate: load_balancer,
};

pub(in crate::cloudsim) const APPLICATION_GATEWAY: Definition = Definition {
    namespace: "Microsoft.Network",
    types: &["applicationGateways"],
    parent: None,
    form: FORM,
    id: "/subscriptions/{s}/resourceGroups/rg{g}/providers/Microsoft.Network/applicationGateways/gw{n}",
    permission: "Microsoft.Network/applicationGateways/read",
    generate: application_gateway,
};

/// Groups have a generator of their own, since their rules differ from group to group: see
/// [`NetworkSecurityGroup`](crate::cloudsim::NetworkSecurityGroup).
pub(in crate::cloudsim) const NETWORK_SECURITY_GROUP: Definition = Definition {
    namespace: "Microsoft.Network",
    types: &["networkSecurityGroups"],
    parent: None,
    form: FORM,
    id: "",
    permission: "Microsoft.Network/networkSecurityGroups/read",
    generate: |_| Value::Null,
};

/// What all resources of the provider begin with.
fn resource(definition: &Definition, name: &str, shape: &mut Shape<'_>, mut properties: Value) -> Value {
    properties.set("provisioningState", Some(if shape.is(17, 24) { "Updating" } else { "Succeeded" }));
    properties.set("resourceGuid", Some("{1}"));
    let kind = definition.types.concat();
    let mut resource = json!({
        "id": definition.id,
        "name": name,
        "type": format!("Microsoft.Network/{kind}"),
        "etag": "W/\"{0}\"",
        "location": shape.location(),
        "properties": properties,
    });
    resource.set("tags", shape.tags());
    resource
}

fn network_interface(shape: &mut Shape<'_>) -> Value {
    let id = NETWORK_INTERFACE.id;
    let mut configuration = json!({
        "name": "ipconfig1",
        "id": format!("{id}/ipConfigurations/ipconfig1"),
        "etag": "W/\"{0}\"",
        "type": "Microsoft.Network/networkInterfaces/ipConfigurations",
        "properties": {
            "provisioningState": "Succeeded",
            "privateIPAddress": "10.0.{g}.4",
            "privateIPAllocationMethod": shape.turn(&["Dynamic", "Static"]),
            "privateIPAddressVersion": "IPv4",
            "subnet": {"id": format!("{PROVIDER}/virtualNetworks/vnet1/subnets/subnet1")},
            "primary": true,
        },
    });
    if let Some(properties) = configuration.get_mut("properties") {
        let address = json!({"id": format!("{PROVIDER}/publicIPAddresses/pip{{n}}")});
        properties.set("publicIPAddress", shape.is(1, 3).then_some(address));
    }
    let mut properties = json!({
        "ipConfigurations": [configuration],
        "dnsSettings": {"dnsServers": [], "appliedDnsServers": [], "internalDomainNameSuffix": "cx.internal.cloudapp.net"},
        "macAddress": "00-0D-3A-1B-C7-21",
        "enableAcceleratedNetworking": shape.is(0, 2),
        "enableIPForwarding": shape.is(4, 5),
        "vnetEncryptionSupported": false,
        "disableTcpStateTracking": false,
        "hostedWorkloads": [],
        "tapConfigurations": [],
        "nicType": "Standard",
        "auxiliaryMode": "None",
        "auxiliarySku": "None",
    });
    let group = json!({"id": format!("{PROVIDER}/networkSecurityGroups/nsg{{n}}")});
    properties.set("networkSecurityGroup", shape.is(0, 2).then_some(group));
    let machine = "/subscriptions/{s}/resourceGroups/RG{g}/providers/Microsoft.Compute/virtualMachines/vm{n}";
    properties.set("virtualMachine", (!shape.is(5, 6)).then(|| json!({"id": machine})));
    resource(&NETWORK_INTERFACE, "nic{n}", shape, properties)
}

fn public_ip_address(shape: &mut Shape<'_>) -> Value {
    let is_static = shape.is(0, 2);
    let mut properties = json!({
        "publicIPAddressVersion": "IPv4",
        "publicIPAllocationMethod": if is_static { "Static" } else { "Dynamic" },
        "idleTimeoutInMinutes": 4,
        "ipTags": [],
        "ddosSettings": {"protectionMode": "VirtualNetworkInherited"},
    });
    // An address that is allotted when needed is not there while nothing needs it.
    properties.set("ipAddress", (is_static || shape.is(1, 3)).then_some("203.0.113.{g}"));
    let configuration = format!("{}/ipConfigurations/ipconfig1", NETWORK_INTERFACE.id);
    properties.set("ipConfiguration", shape.is(1, 3).then(|| json!({"id": configuration})));
    let dns = json!({"domainNameLabel": "app{n}", "fqdn": "app{n}.westeurope.cloudapp.azure.com"});
    properties.set("dnsSettings", shape.is(2, 4).then_some(dns));
    let mut address = resource(&PUBLIC_IP_ADDRESS, "pip{n}", shape, properties);
    address.set("sku", Some(json!({"name": if is_static { "Standard" } else { "Basic" }, "tier": "Regional"})));
    address
}

fn load_balancer(shape: &mut Shape<'_>) -> Value {
    let id = LOAD_BALANCER.id;
    let mut front = json!({
        "provisioningState": "Succeeded",
        "privateIPAllocationMethod": "Dynamic",
        "loadBalancingRules": [{"id": format!("{id}/loadBalancingRules/rule1")}],
    });
    if shape.is(0, 2) {
        front.set("publicIPAddress", Some(json!({"id": format!("{PROVIDER}/publicIPAddresses/pip{{n}}")})));
    } else {
        front.set("privateIPAddress", Some("10.0.{g}.10"));
        front.set("subnet", Some(json!({"id": format!("{PROVIDER}/virtualNetworks/vnet1/subnets/subnet1")})));
    }
    let properties = json!({
        "frontendIPConfigurations": [{
            "name": "frontend1",
            "id": format!("{id}/frontendIPConfigurations/frontend1"),
            "etag": "W/\"{0}\"",
            "properties": front,
        }],
        "backendAddressPools": [{
            "name": "pool1",
            "id": format!("{id}/backendAddressPools/pool1"),
            "etag": "W/\"{0}\"",
            "properties": {"provisioningState": "Succeeded", "backendIPConfigurations": []},
        }],
        "loadBalancingRules": [{
            "name": "rule1",
            "id": format!("{id}/loadBalancingRules/rule1"),
            "etag": "W/\"{0}\"",
            "properties": {
                "provisioningState": "Succeeded",
                "frontendIPConfiguration": {"id": format!("{id}/frontendIPConfigurations/frontend1")},
                "backendAddressPool": {"id": format!("{id}/backendAddressPools/pool1")},
                "protocol": "Tcp",
                "frontendPort": if shape.is(1, 3) { 22 } else { 443 },
                "backendPort": if shape.is(1, 3) { 22 } else { 8443 },
                "enableFloatingIP": false,
                "idleTimeoutInMinutes": 15,
                "loadDistribution": "Default",
            },
        }],
        "probes": [],
        "inboundNatRules": [],
        "inboundNatPools": [],
        "outboundRules": [],
    });
    let mut balancer = resource(&LOAD_BALANCER, "lb{n}", shape, properties);
    balancer.set("sku", Some(json!({"name": shape.turn(&["Standard", "Basic"]), "tier": "Regional"})));
    balancer
}

fn application_gateway(shape: &mut Shape<'_>) -> Value {
    let id = APPLICATION_GATEWAY.id;
    let tier = if shape.is(0, 2) { "WAF_v2" } else { "Standard_v2" };
    let child = |kind: &str, name: &str, properties: Value| json!([{"name": name, "id": format!("{id}/{kind}/{name}"), "etag": "W/\"{0}\"", "properties": properties}]);
    let mut properties = json!({
        "sku": {"name": tier, "tier": tier, "family": "Generation_1", "capacity": 2},
        "operationalState": if shape.is(3, 4) { "Stopped" } else { "Running" },
        "gatewayIPConfigurations": child("gatewayIPConfigurations", "gateway1", json!({
            "provisioningState": "Succeeded",
            "subnet": {"id": format!("{PROVIDER}/virtualNetworks/vnet1/subnets/gateways")},
        })),
        "sslCertificates": [],
        "frontendIPConfigurations": child("frontendIPConfigurations", "frontend1", json!({
            "provisioningState": "Succeeded",
            "privateIPAllocationMethod": "Dynamic",
            "publicIPAddress": {"id": format!("{PROVIDER}/publicIPAddresses/pip{{n}}")},
        })),
        "frontendPorts": child("frontendPorts", "port1", json!({
            "provisioningState": "Succeeded",
            "port": if shape.is(1, 3) { 80 } else { 443 },
        })),
        "backendAddressPools": child("backendAddressPools", "pool1", json!({
            "provisioningState": "Succeeded",
            "backendAddresses": [{"ipAddress": "10.0.{g}.20"}],
        })),
        "backendHttpSettingsCollection": child("backendHttpSettingsCollection", "settings1", json!({
            "provisioningState": "Succeeded",
            "port": 80,
            "protocol": "Http",
            "cookieBasedAffinity": "Disabled",
            "requestTimeout": 30,
        })),
        "httpListeners": child("httpListeners", "listener1", json!({
            "provisioningState": "Succeeded",
            "frontendIPConfiguration": {"id": format!("{id}/frontendIPConfigurations/frontend1")},
            "frontendPort": {"id": format!("{id}/frontendPorts/port1")},
            "protocol": if shape.is(1, 3) { "Http" } else { "Https" },
            "requireServerNameIndication": false,
        })),
        "requestRoutingRules": child("requestRoutingRules", "rule1", json!({
            "provisioningState": "Succeeded",
            "ruleType": "Basic",
            "priority": 10,
            "httpListener": {"id": format!("{id}/httpListeners/listener1")},
            "backendAddressPool": {"id": format!("{id}/backendAddressPools/pool1")},
            "backendHttpSettings": {"id": format!("{id}/backendHttpSettingsCollection/settings1")},
        })),
        "probes": [],
    });
    let firewall = json!({
        "enabled": true,
        "firewallMode": if shape.is(0, 4) { "Prevention" } else { "Detection" },
        "ruleSetType": "OWASP",
        "ruleSetVersion": "3.2",
    });
    properties.set("webApplicationFirewallConfiguration", shape.is(0, 2).then_some(firewall));
    let policy = json!({"policyType": "Predefined", "policyName": "AppGwSslPolicy20220101"});
    properties.set("sslPolicy", shape.is(1, 4).then_some(policy));
    resource(&APPLICATION_GATEWAY, "gw{n}", shape, properties)
}
