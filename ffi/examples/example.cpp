// The same life of a secret as in example.c, in C++ with a few lines of RAII:
//
//     c++ -std=c++11 example.cpp $(pkg-config --cflags --libs keystead) -o example
//     ./example DIRECTORY PLUGIN DIGEST
#include <keystead.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace keystead {

// One class for all: what() for people, code() and error_class() for programs.
class Error : public std::runtime_error {
public:
    explicit Error(keystead_error *error)
        : std::runtime_error(keystead_error_message(error)), code_(keystead_error_code(error)),
          class_(keystead_error_class(error))
    {
        keystead_error_free(error);
    }
    int code() const { return code_; }
    int error_class() const { return class_; }

private:
    int code_;
    int class_;
};

template <typename T> struct Free;
#define KEYSTEAD_FREE(T)                                                                                               \
    template <> struct Free<T> {                                                                                       \
        void operator()(T *object) const { T##_free(object); }                                                         \
    }
KEYSTEAD_FREE(keystead_backend);
KEYSTEAD_FREE(keystead_store);
KEYSTEAD_FREE(keystead_organization);
KEYSTEAD_FREE(keystead_secret);
KEYSTEAD_FREE(keystead_rewrap_job);
KEYSTEAD_FREE(keystead_epoch_list);
#undef KEYSTEAD_FREE

template <typename T> using Owned = std::unique_ptr<T, Free<T>>;

// Calls a function whose last arguments are where the answer and the error go.
template <typename T, typename F, typename... A> Owned<T> make(F function, A... arguments)
{
    T *object = nullptr;
    keystead_error *error = nullptr;
    if (function(arguments..., &object, &error) != KEYSTEAD_OK) {
        throw Error(error);
    }
    return Owned<T>(object);
}

} // namespace keystead

using keystead::make;
using keystead::Owned;

static const size_t Z = KEYSTEAD_ZERO_TERMINATED;

static std::vector<uint8_t> parse_digest(const std::string &text)
{
    std::vector<uint8_t> digest;
    if (text.size() != 64) {
        throw std::invalid_argument("a digest has 64 hexadecimal digits");
    }
    for (size_t at = 0; at < 64; at += 2) {
        digest.push_back(static_cast<uint8_t>(std::stoul(text.substr(at, 2), nullptr, 16)));
    }
    return digest;
}

static void run(const std::string &directory, const std::string &path, const std::string &digest_text)
{
    const std::string own = "{\"keyring\":\"" + directory + "/app.keyring\"}";
    const std::string theirs = "{\"keyring\":\"" + directory + "/customer.keyring\"}";
    const std::vector<uint8_t> digest = parse_digest(digest_text);

    Owned<keystead_backend> managed = make<keystead_backend>(keystead_backend_managed, own.data(), own.size());
    keystead_plugin_options plugin = keystead_plugin_options();
    plugin.struct_size = sizeof plugin;
    plugin.digests = digest.data();
    plugin.digests_len = 1;
    plugin.name = "customer-kms";
    plugin.name_len = Z;
    plugin.settings_json = theirs.data();
    plugin.settings_json_len = theirs.size();
    Owned<keystead_backend> customer =
        make<keystead_backend>(keystead_backend_load, path.data(), path.size(), &plugin);

    const keystead_backend *backends[] = {managed.get(), customer.get()};
    keystead_store_options options = keystead_store_options();
    options.struct_size = sizeof options;
    options.backends = backends;
    options.backends_len = 2;
    const std::string file = directory + "/app.keystead";
    Owned<keystead_store> store = make<keystead_store>(keystead_store_create, file.data(), file.size(), &options);

    Owned<keystead_organization> acme =
        make<keystead_organization>(keystead_organization_create, store.get(), "acme", Z);
    const std::string value = "correct horse";
    keystead_error *error = nullptr;
    if (keystead_put(acme.get(), "prod/db/password", Z, reinterpret_cast<const uint8_t *>(value.data()), value.size(),
                     nullptr, nullptr, &error) != KEYSTEAD_OK) {
        throw keystead::Error(error);
    }

    Owned<keystead_rewrap_job> job = make<keystead_rewrap_job>(keystead_key_add, acme.get(), "acme-cmk", Z,
                                                               "customer-kms", Z, nullptr, 0);
    if (keystead_rewrap_wait(job.get(), 60000, nullptr, nullptr, nullptr, &error) != KEYSTEAD_OK) {
        throw keystead::Error(error);
    }

    Owned<keystead_secret> secret = make<keystead_secret>(keystead_get, acme.get(), "prod/db/password", Z, 0u);
    const std::string read(reinterpret_cast<const char *>(keystead_secret_data(secret.get())),
                           keystead_secret_len(secret.get()));
    if (read != value) {
        throw std::logic_error("another value than was put");
    }
    std::cout << "got version " << keystead_secret_version(secret.get()) << ", " << read.size() << " bytes\n";

    Owned<keystead_epoch_list> epochs = make<keystead_epoch_list>(keystead_epoch_list_read, acme.get());
    for (size_t at = 0; at < keystead_epoch_list_len(epochs.get()); ++at) {
        keystead_epoch epoch = keystead_epoch();
        epoch.struct_size = sizeof epoch;
        keystead_epoch_list_get(epochs.get(), at, &epoch, nullptr);
        std::cout << "epoch " << epoch.number << " " << epoch.key.data << ", " << epoch.data_keys << " data keys\n";
    }
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        std::cerr << "usage: example DIRECTORY PLUGIN DIGEST\n";
        return 2;
    }
    try {
        run(argv[1], argv[2], argv[3]);
        return 0;
    } catch (const std::exception &error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
